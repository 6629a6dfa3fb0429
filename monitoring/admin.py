"""What of `monitoring` is in the admin site: to be read, never to be changed."""

from __future__ import annotations

from monitoring import backup_admin
from monitoring.audit import admin as audit_admin

__all__ = ["audit_admin", "backup_admin"]  # each registers its own when imported
