"""Backups in the admin site: what became of each."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from monitoring.models import BackupRecord


@admin.register(BackupRecord)
class BackupRecordAdmin(admin.ModelAdmin[BackupRecord]):
    list_display = (
        *("file_name", "started_at", "finished_at", "size_bytes", "outcome", "verified_at"),
        "error",
    )
    list_filter = ("outcome",)
    date_hierarchy = "started_at"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False
