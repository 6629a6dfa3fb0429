"""Queries in the admin site: what was used, never what was said."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from consciousness import engine_admin as engine_admin  # registers engines and aliases
from consciousness.models import Query


@admin.register(Query)
class QueryAdmin(admin.ModelAdmin[Query]):
    list_display = (
        *("created_at", "user", "status", "model", "prompt_tokens", "completion_tokens"),
        *("processing_time_ms", "error_code"),
    )
    # Not the model: its choices would be whatever callers ever wrote there, read from all rows.
    list_filter = ("status", "kind")
    list_select_related = ("user",)
    search_fields = ("user__username_canonical", "request_id", "=model")
    date_hierarchy = "created_at"
    show_full_result_count = False  # counting a large table for a page of it

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False
