from __future__ import annotations

from datetime import timedelta

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        from accounts import actions, deployment_checks, mailing
        from accounts import authentication as authentication  # registers its OpenAPI extension
        from accounts.holdings import holdings
        from accounts.maintenance import flush_admin_log, flush_credentials, flush_mails
        from accounts.services import end_everybodys_sessions
        from accounts.stored import read_mails, read_users
        from monitoring import audit, deployment, jobs, personal_data
        from monitoring.backups import afterwards
        from monitoring.stored import KEEP_COUNTS_S, stored

        audit.register(actions.ACTIONS)
        afterwards.register("sessions and mailed links ended", end_everybodys_sessions)
        afterwards.mind(actions.TO_DO_AGAIN_AFTER_A_RESTORE)
        for holding in holdings():
            personal_data.register(holding)
        deployment.register("mail", deployment_checks.ask_mail, asks_elsewhere=True)
        deployment.register("administrators", deployment_checks.ask_administrators)
        stored.register("mails", read_mails)
        stored.register("users", read_users, keep_s=KEEP_COUNTS_S)
        jobs.register(
            "send_mails",
            mailing.send_due,
            interval=timedelta(seconds=2),
            lease=mailing.LEASE,
            is_needed=mailing.is_any_due,
        )
        jobs.register("flush_credentials", flush_credentials, interval=timedelta(hours=1))
        jobs.register("flush_mails", flush_mails, interval=timedelta(hours=1))
        jobs.register("flush_admin_log", flush_admin_log, interval=timedelta(hours=1))
