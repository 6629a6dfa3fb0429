"""The audit trail in the admin site: searched and never changed. It holds ids and no names."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from monitoring import audit
from monitoring.models import AuditArchive, AuditEvent, AuditSeal
from monitoring.read_only_admin import ReadOnlyAdmin


class _ActionFilter(admin.SimpleListFilter):
    """The registered actions, and not whatever a walk through all rows would find."""

    title = parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(action, action) for action in sorted(audit.actions())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "action", "actor_id", "subject_id", "request_id", "seal_id")
    list_filter = (_ActionFilter, "at")
    search_fields = ("actor_id", "subject_id", "request_id")  # that there is a field to search in
    search_help_text = "An id of a person, a thing or a request, or a person's name; in full."
    ordering = ("-at", "-id")
    fields = (
        *("id", "at", "action", "meaning", "actor_id", "subject_id", "detail", "request_id"),
        *("seal", "digest_hex"),
    )

    @admin.display(description="meaning")
    def meaning(self, event: AuditEvent) -> str:
        return audit.actions().get(event.action, "No longer used.")

    @admin.display(description="digest")
    def digest_hex(self, event: AuditEvent) -> str:
        return bytes(event.digest).hex()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Each word whole, so that an index answers."""
        for word in search_term.split():
            queryset = queryset.filter(_about(word))
        return queryset, False


def _about(word: str) -> Q:
    ids = {word.lower(), *(str(user_id) for user_id in _person(word))}
    wanted = Q(subject_id__in=ids) | Q(request_id=word)
    for each in ids:
        try:
            wanted |= Q(actor_id=uuid.UUID(each))
        except ValueError:
            continue
    return wanted


def _person(name: str) -> list[uuid.UUID]:
    model = get_user_model()
    try:
        return [model._default_manager.get_by_natural_key(name).pk]
    except model.DoesNotExist:
        return []


class _Chained(ReadOnlyAdmin):
    @admin.display(description="chain")
    def chain_hex(self, row: AuditSeal | AuditArchive) -> str:
        return bytes(row.chain).hex()

    @admin.display(description="digest")
    def digest_hex(self, row: AuditSeal | AuditArchive) -> str:
        return bytes(row.digest).hex()


@admin.register(AuditSeal)
class AuditSealAdmin(_Chained):
    list_display = ("id", "sealed_at", "count", "first_id", "last_id")
    ordering = ("-id",)
    fields = (*("id", "sealed_at", "count", "ids"), *("chain_hex", "digest_hex"))


@admin.register(AuditArchive)
class AuditArchiveAdmin(_Chained):
    list_display = ("file_name", "archived_at", "count", "first_seal", "last_seal", "size_bytes")
    ordering = ("-last_seal",)
    fields = (
        *("file_name", "size_bytes", "file_digest_hex", "archived_at"),
        *("first_seal", "last_seal", "last_id", "count", "chain_hex", "digest_hex"),
    )

    @admin.display(description="SHA-256 of the file")
    def file_digest_hex(self, archive: AuditArchive) -> str:
        return bytes(archive.file_digest).hex()
