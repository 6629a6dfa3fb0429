"""The index of facts anew: words keep their combining marks on SQLite, and end at the punctuation of
more scripts on PostgreSQL.

Under a lock: before the first release nobody has many facts.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

from consciousness import memory_index


def _create_anew(apps: Any, schema_editor: Any) -> None:
    memory_index.drop(schema_editor.connection)
    memory_index.create(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("consciousness", "0003_memory_search")]
    operations = [migrations.RunPython(_create_anew, migrations.RunPython.noop)]
