from __future__ import annotations

from datetime import timedelta

from django.apps import AppConfig


class ConsciousnessConfig(AppConfig):
    name = "consciousness"

    def ready(self) -> None:
        from consciousness.engine import ask_engine
        from consciousness.holdings import memories, queries
        from consciousness.maintenance import delete_old_queries, settle_orphans
        from monitoring import health, jobs, personal_data

        health.registry.register("engine", ask_engine)
        personal_data.register(queries())
        personal_data.register(memories())
        jobs.register("settle_orphans", settle_orphans, interval=timedelta(minutes=1))
        jobs.register("delete_old_queries", delete_old_queries, interval=timedelta(hours=1))
