"""What of `monitoring` is in the admin site: to be read, never to be changed."""

from __future__ import annotations

from monitoring import audit_admin as audit_admin  # registers the audit trail
from monitoring import backup_admin as backup_admin  # registers backups
