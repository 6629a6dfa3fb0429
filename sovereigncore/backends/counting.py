"""What both databases share: statements, their times and their failures, by django-prometheus.

Of that package this takes the counters and the cursor that feeds them. Its own wrappers make a new
class for each cursor (SQLite) or connection (PostgreSQL), which cost more than all of the counting;
here there is one. Its middleware, its models and its count of migrations are not used.
"""

from __future__ import annotations

import functools
from typing import Any

from django_prometheus.db.common import ExportingCursorWrapper


@functools.cache
def counting(cursor_class: type[Any], alias: str, vendor: str) -> type[Any]:
    """`cursor_class`, made to count and time what it executes."""
    counts: type[Any] = ExportingCursorWrapper(cursor_class, alias, vendor)
    return counts
