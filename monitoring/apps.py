from __future__ import annotations

from datetime import timedelta

from django.apps import AppConfig
from django.conf import settings


class MonitoringConfig(AppConfig):
    name = "monitoring"

    def ready(self) -> None:
        from monitoring import actions, audit, health, job_metrics, jobs, personal_data, probes
        from monitoring.audit import archiving, sealing
        from monitoring.audit import metrics as audit_metrics
        from monitoring.backups import readings, schedule
        from monitoring.holdings import audit_events
        from monitoring.stored import stored

        audit.register(actions.ACTIONS)
        stored.register("backups", readings.read)
        if settings.BACKUP_DIR:
            jobs.register(
                "backup",
                schedule.run_due,
                interval=schedule.LOOK_EVERY,
                lease=schedule.LEASE,
            )
        personal_data.register(audit_events())
        stored.register("jobs", job_metrics.read)
        health.registry.register("database", probes.ask_database)
        if settings.REDIS_URL:
            health.registry.register("cache", probes.ask_cache)
        jobs.register(
            "seal_audit",
            sealing.seal_audit,
            interval=timedelta(seconds=10),
            is_needed=sealing.is_needed,
        )
        jobs.register(
            "archive_audit",
            archiving.archive_audit,
            interval=timedelta(days=1),
            lease=timedelta(hours=1),
        )
        stored.register("audit", audit_metrics.read)
