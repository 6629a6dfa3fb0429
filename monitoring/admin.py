"""What of `monitoring` is in the admin site: to be read, never to be changed."""

from __future__ import annotations

from monitoring import backup_admin as backup_admin  # registers backups
