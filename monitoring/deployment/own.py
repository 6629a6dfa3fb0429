"""The checks of what every installation has, in the order in which they are told."""

from __future__ import annotations

from monitoring.deployment import cache, database, host, saved, trail, work
from monitoring.deployment.asking import Check

CHECKS = (
    Check(name="settings", ask=host.ask_settings),
    Check(name="settings file", ask=host.ask_settings_file),
    Check(name="clock", ask=host.ask_clock),
    Check(name="disks", ask=host.ask_disks),
    Check(name="migrations", ask=database.ask_migrations),
    Check(name="database roles", ask=database.ask_roles),
    Check(name="audit triggers", ask=database.ask_triggers),
    Check(name="audit trail", ask=trail.ask_audit_trail),
    Check(name="redis", ask=cache.ask_redis, asks_elsewhere=True),
    Check(name="worker", ask=work.ask_worker),
    Check(name="backup", ask=saved.ask_backup),
    Check(name="backup place", ask=saved.ask_backup_place),
)
