"""On SQLite, REPLACE got past the triggers of 0003."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from monitoring.append_only import forbid_changes


def _forbid(apps: Any, schema_editor: Any) -> None:
    forbid_changes(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0003_audit_append_only")]
    operations = [migrations.RunPython(_forbid, migrations.RunPython.noop)]
