from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings


class MonitoringConfig(AppConfig):
    name = "monitoring"

    def ready(self) -> None:
        from monitoring import health, job_metrics, personal_data, probes
        from monitoring.holdings import audit_events
        from monitoring.stored import stored

        personal_data.register(audit_events())
        stored.register("jobs", job_metrics.read)
        health.registry.register("database", probes.ask_database)
        if settings.REDIS_URL:
            health.registry.register("cache", probes.ask_cache)
