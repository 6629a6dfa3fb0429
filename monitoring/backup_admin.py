"""Backups in the admin site: what became of each."""

from __future__ import annotations

from django.contrib import admin

from monitoring.models import BackupRecord
from monitoring.read_only_admin import ReadOnlyAdmin


@admin.register(BackupRecord)
class BackupRecordAdmin(ReadOnlyAdmin):
    list_display = (
        *("file_name", "started_at", "finished_at", "size_bytes", "outcome", "verified_at"),
        "error",
    )
    list_filter = ("outcome",)
    date_hierarchy = "started_at"
