"""What went wrong in making or reading a backup, as one sentence."""

from __future__ import annotations

import errno
import sqlite3

from django.db import Error
from psycopg.errors import InsufficientPrivilege

from monitoring.backups.errors import IS_IT_THE_OWNER, BackupError

# What making, checking and restoring may meet; anything else is a mistake of ours.
EXPECTED = (BackupError, OSError, Error, sqlite3.Error)
_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FULL_SQLITE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}


def explain(error: Exception) -> str:
    if isinstance(error, BackupError):
        return str(error)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in _FULL:
            return f"There is no room left{where}: {error.strerror}."
        return f"{error.strerror or type(error).__name__}{where}."
    if isinstance(error, sqlite3.Error):
        if getattr(error, "sqlite_errorcode", None) in _FULL_SQLITE:
            return f"There is no room left in DATA_DIR: {error}."
        return f"SQLite: {error}."
    why = f"The database: {str(error).partition(chr(10))[0] or type(error).__name__}."
    if isinstance(error.__cause__, InsufficientPrivilege):
        return f"{why} {IS_IT_THE_OWNER}."
    return why
