"""The database itself refuses to change or remove a row of the audit trail."""

from __future__ import annotations

from typing import Any

from django.db import migrations

from monitoring.append_only import forbid_changes, permit_changes


def _forbid(apps: Any, schema_editor: Any) -> None:
    forbid_changes(schema_editor.connection)


def _permit(apps: Any, schema_editor: Any) -> None:
    permit_changes(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0002_auditevent")]
    operations = [migrations.RunPython(_forbid, _permit)]
