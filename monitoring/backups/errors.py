"""What can be wrong with a backup or with making one. Messages are sentences for the operator."""

from __future__ import annotations

# With two roles the web processes' URL is the one in the settings file, and the likely mistake.
IS_IT_THE_OWNER = "Is DATABASE_URL the owner's? See docs/how-to/postgresql.md"


class BackupError(Exception):
    """Why something was not done; nothing was changed by trying."""


class BackupFailed(BackupError):
    """A backup could not be written, or something could not be read for it."""


class BackupRefused(BackupError):
    """This archive is not to be restored here."""


class DamagedBackup(BackupRefused):
    """It is not what was written: changed, cut off or mixed up."""


class ForeignBackup(BackupRefused):
    """It is no backup of ours, or one under another key, or of another kind of database."""


class NewerBackup(BackupRefused):
    """It was made by a version that knows more than this one."""


class OtherKeys(BackupRefused):
    """The secrets of the server are not those that the data was written with."""


class DatabaseInUse(BackupError):
    """Something is still running on the database that is to be replaced."""
