"""Backups: encrypted archives of the database and what belongs to it, and the way back.

`making` writes one, `checking` restores one into a scratch database and compares, `restoring` puts
one in the place of the database, `schedule` does the first two by itself. `cipher` and `archive`
are the file format; `sqlite` and `postgresql` are all that differs between the databases.
"""
