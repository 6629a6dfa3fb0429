"""Nothing any more: 0007 makes the triggers that keep the audit trail as it is."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0003_audit_append_only")]
    operations: list[migrations.operations.base.Operation] = []
