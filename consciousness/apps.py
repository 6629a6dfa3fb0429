from __future__ import annotations

from datetime import timedelta

from django.apps import AppConfig


class ConsciousnessConfig(AppConfig):
    name = "consciousness"

    def ready(self) -> None:
        from consciousness import actions, deployment_checks
        from consciousness.cache import forget_old_answers
        from consciousness.engines import ask_engines
        from consciousness.holdings import all_holdings
        from consciousness.maintenance import (
            delete_old_queries,
            delete_old_usage,
            forget_idempotent_requests,
            settle_orphans,
        )
        from consciousness.stored import read_activity, read_engines, read_holdings
        from monitoring import audit, deployment, health, jobs, personal_data
        from monitoring.stored import KEEP_COUNTS_S, stored

        audit.register(actions.ACTIONS)
        health.registry.register("engine", ask_engines)
        deployment.register("engine", deployment_checks.ask_engine, asks_elsewhere=True)
        for holding in all_holdings():
            personal_data.register(holding)
        stored.register("engines", read_engines)
        stored.register("activity", read_activity, keep_s=KEEP_COUNTS_S)
        stored.register("holdings", read_holdings, keep_s=KEEP_COUNTS_S)
        jobs.register("settle_orphans", settle_orphans, interval=timedelta(minutes=1))
        jobs.register("forget_old_answers", forget_old_answers, interval=timedelta(hours=1))
        jobs.register("delete_old_queries", delete_old_queries, interval=timedelta(hours=1))
        jobs.register("delete_old_usage", delete_old_usage, interval=timedelta(hours=1))
        jobs.register(
            "forget_idempotent_requests", forget_idempotent_requests, interval=timedelta(hours=1)
        )
