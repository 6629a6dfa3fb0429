"""Engines and model aliases in the admin site. Every process follows within two seconds."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Model, QuerySet, Sum
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from consciousness import engines
from consciousness.engine_forms import ModelAliasForm, UpstreamForm
from consciousness.engine_keys import SealBroken, unseal
from consciousness.models import ModelAlias, Upstream
from monitoring import audit


class _OnRecord(admin.ModelAdmin[Any]):
    """Every change leaves an audit row, with the names of the fields and not what is in them."""

    area = ""  # of the audit trail's words

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        fields = form.changed_fields
        if change and not fields:
            return
        with transaction.atomic():
            super().save_model(request, obj, form, change)
            self._record(request, "changed" if change else "added", obj, fields)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with transaction.atomic():
            self._record(request, "removed", obj)
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for obj in queryset:
            self.delete_model(request, obj)

    @admin.action(description="Enable the selected ones", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._set_enabled(request, queryset, is_enabled=True)

    @admin.action(description="Disable the selected ones", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._set_enabled(request, queryset, is_enabled=False)

    def _set_enabled(
        self, request: HttpRequest, queryset: QuerySet[Any], *, is_enabled: bool
    ) -> None:
        with transaction.atomic():
            # Locked, or what another operator saves meanwhile would be undone with the rest of it.
            changed = list(queryset.exclude(is_enabled=is_enabled).select_for_update())
            for obj in changed:
                obj.is_enabled = is_enabled
                obj.save()
                self._record(request, "changed", obj, ["is_enabled"])
        self.message_user(request, f"Changed: {len(changed)}.", messages.SUCCESS)

    def _record(
        self, request: HttpRequest, verb: str, obj: Model, fields: list[str] | None = None
    ) -> None:
        action = {
            ("engine", "added"): "engine.added",
            ("engine", "changed"): "engine.changed",
            ("engine", "removed"): "engine.removed",
            ("alias", "added"): "alias.added",
            ("alias", "changed"): "alias.changed",
            ("alias", "removed"): "alias.removed",
        }[self.area, verb]
        audit.record(
            action,
            actor_id=request.user.pk,
            subject_id=str(obj.pk),
            detail={"fields": fields} if fields else None,
        )
        transaction.on_commit(engines.roster.expire)


@admin.register(Upstream)
@method_decorator(sensitive_post_parameters("api_key"), name="changeform_view")
class UpstreamAdmin(_OnRecord):
    area = "engine"
    form = UpstreamForm
    list_display = (
        *("name", "url", "priority", "weight", "slots", "is_enabled"),
        *("state", "served_models"),
    )
    list_filter = ("is_enabled",)
    search_fields = ("name", "url")
    actions = ("enable", "disable")
    readonly_fields = ("state", "served_models", "kept_key")
    fieldsets = (
        (None, {"fields": ("name", "address", "is_enabled", "state", "served_models")}),
        ("API key", {"fields": ("kept_key", "api_key", "clear_api_key")}),
        (
            "Share of the work",
            {
                "fields": ("priority", "weight", "slots"),
                "description": "Of the engines that serve a model, the lowest priority is asked"
                " first; among equals, shares go by weight. The engine that ENGINE_URL names has"
                " priority 0 and weight 1.",
            },
        ),
    )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        added = Upstream.objects.filter(is_enabled=True).aggregate(Sum("slots", default=0))
        needed = settings.QUEUE_LIMIT + settings.ENGINE_SLOTS + added["slots__sum"] + 32
        if needed > settings.WEB_THREADS:
            text = (
                f"{needed - settings.WEB_THREADS} more requests could run and wait than WEB_THREADS"
                f" ({settings.WEB_THREADS}) lets one web process hold: {needed} would be enough."
            )
            self.message_user(request, text, messages.WARNING)

    @admin.display(description="state")
    def state(self, engine: Upstream) -> str:
        """As this process sees it."""
        if not engine.is_enabled:
            return "disabled"
        seen = _seen(engine)
        return f"{seen['status']} ({seen['code']})" if "code" in seen else str(seen["status"])

    @admin.display(description="models")
    def served_models(self, engine: Upstream) -> str:
        return ", ".join(_seen(engine)["models"]) if engine.is_enabled else ""

    @admin.display(description="now")
    def kept_key(self, engine: Upstream) -> str:
        try:
            return "kept" if unseal(bytes(engine.sealed_api_key)) else "none"
        except SealBroken:
            return "cannot be opened, as after a change of SECRET_KEY: enter it again"


def _seen(engine: Upstream) -> dict[str, Any]:
    for described in engines.summary():
        if described["name"] == engine.name:
            return described
    return {"status": "down", "models": []}  # not read yet


@admin.register(ModelAlias)
class ModelAliasAdmin(_OnRecord):
    area = "alias"
    form = ModelAliasForm
    list_display = ("alias", "model", "is_enabled")
    list_filter = ("is_enabled",)
    search_fields = ("alias", "model")
    actions = ("enable", "disable")
