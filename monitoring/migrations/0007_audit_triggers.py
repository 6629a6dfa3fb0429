"""The digest of a row of the audit trail covers its id, so that a copy of a row is none; and the
database itself refuses to change or remove what is there, but for sealing a row once.

A row whose digest does not hold keeps it: it must show.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC
from typing import Any

import orjson
from django.conf import settings
from django.db import migrations

from monitoring.audit.append_only import forbid_changes, permit_changes


def _cover_ids(apps: Any, schema_editor: Any) -> None:
    AuditEvent = apps.get_model("monitoring", "AuditEvent")
    for event in AuditEvent.objects.order_by("id").iterator():
        said = [
            event.at.astimezone(UTC).isoformat(timespec="microseconds"),
            *(event.action, str(event.actor_id or ""), event.subject_id, event.detail),
            event.request_id,
        ]
        if bytes(event.digest) == _keyed(said):
            AuditEvent.objects.filter(pk=event.pk).update(digest=_keyed([event.pk, *said]))


def _keyed(said: list[Any]) -> bytes:
    text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return hmac.digest(settings.AUDIT_KEY.encode(), text, hashlib.sha256)


def _forbid(apps: Any, schema_editor: Any) -> None:
    forbid_changes(schema_editor.connection)


def _permit(apps: Any, schema_editor: Any) -> None:
    permit_changes(schema_editor.connection)


class Migration(migrations.Migration):
    dependencies = [("monitoring", "0006_audit_seals")]
    operations = [
        migrations.RunPython(_cover_ids, migrations.RunPython.noop),
        migrations.RunPython(_forbid, _permit),
    ]
