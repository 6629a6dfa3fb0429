"""Full text search of facts: an index on either database, kept by the database itself.

Under a lock: before the first release nobody has many facts.
"""

from __future__ import annotations

from typing import Any

from django.db import migrations

from consciousness import memory_index


def _create(apps: Any, schema_editor: Any) -> None:
    memory_index.create(schema_editor.connection)


def _drop(apps: Any, schema_editor: Any) -> None:
    memory_index.drop(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("consciousness", "0002_conversations_memory_usage_engines")]
    operations = [migrations.RunPython(_create, _drop)]
