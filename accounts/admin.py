"""Accounts in the admin site. What is done here is on record like what is done by the API."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from accounts import services
from accounts.forms import UserAddForm, UserEditForm
from accounts.models import APIKey, Session, User
from accounts.services import second_factor
from accounts.services.links import end_links
from monitoring import audit
from sovereigncore.api import ServiceError

# Roles are `is_staff` and scopes; groups would be a second system. Devices hold the secrets of
# second factors, which are nobody's business but their owner's.
for model in (Group, TOTPDevice, StaticDevice):
    if admin.site.is_registered(model):
        admin.site.unregister(model)

_ENDS_SESSIONS = {"is_active", "is_staff", "is_superuser"}  # and a new password, by the model


@admin.register(User)
class UserAdmin(StockUserAdmin):  # type: ignore[type-arg]
    list_display = ("username", "email", "full_name", "is_active", "is_staff", "last_login")
    list_filter = ("is_active", "is_staff")
    search_fields = ("username_canonical", "email_canonical", "full_name")
    ordering = ("username_canonical",)
    readonly_fields = ("last_login", "created_at", "token_epoch")
    filter_horizontal = ()
    form, add_form = UserEditForm, UserAddForm
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("full_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Limits", {"fields": ("daily_token_quota",)}),
        ("Record", {"fields": ("last_login", "created_at", "token_epoch")}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "email", "usable_password", "password1", "password2")}),
    )
    actions = ("disable", "enable", "sign_out", "send_reset", "remove_second_factor")

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        changed = sorted(form.changed_data)
        by = _staff(request)
        if obj.is_superuser and not by.is_superuser:
            raise services.NeedsSuperuser
        with transaction.atomic():
            if change:
                _save_changes(obj, changed, by=by)
            else:
                super().save_model(request, obj, form, change)
            if "email" in changed:
                end_links(obj)
            audit.record(
                "user.changed_by_staff" if change else "user.made_by_staff",
                actor_id=request.user.pk,
                subject_id=obj.pk,
                detail={"fields": changed},
            )
            if change and "is_active" in changed:
                action = "user.enabled" if obj.is_active else "user.disabled"
                audit.record(action, actor_id=request.user.pk, subject_id=obj.pk)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:  # noqa: A002 - Django's name
        user = self.get_object(request, unquote(id))  # None for what is no id, too
        if user is not None:
            services.check_authority(user, by=_staff(request))
        with transaction.atomic():
            response = super().user_change_password(request, id, form_url)
            if user is not None and isinstance(response, HttpResponseRedirect):  # it is done
                end_links(user)
                audit.record("password.set_by_staff", actor_id=request.user.pk, subject_id=user.pk)
        return response

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Rights are given by those who have them."""
        own = super().get_readonly_fields(request, obj)
        is_superuser = getattr(request.user, "is_superuser", False)
        return own if is_superuser else (*own, "is_staff", "is_superuser")

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        services.erase_user(obj, by=_staff(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            services.erase_user(user, by=_staff(request))

    @admin.action(description="Disable the selected users")
    def disable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._each(request, queryset, lambda user, by: _set_active(user, by, is_active=False))

    @admin.action(description="Enable the selected users")
    def enable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._each(request, queryset, lambda user, by: _set_active(user, by, is_active=True))

    @admin.action(description="Sign the selected users out everywhere")
    def sign_out(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._each(request, queryset, lambda user, by: services.sign_out(user, by=by))

    @admin.action(description="Mail the selected users a link that sets a new password")
    def send_reset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._each(request, queryset, lambda user, by: services.send_reset(user, by=by))

    @admin.action(description="Remove the second factor of the selected users")
    def remove_second_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self._each(request, queryset, _remove_second_factor)

    def _each(self, request: HttpRequest, queryset: QuerySet[User], do: Any) -> None:
        """Do it to each; one that is refused keeps no other one from it."""
        done = 0
        for user in queryset:
            try:
                do(user, _staff(request))
            except ServiceError as error:
                self.message_user(request, f"{user}: {error.detail}", messages.ERROR)
            else:
                done += 1
        if done:
            self.message_user(request, f"Done for {done} users.", messages.SUCCESS)


def _staff(request: HttpRequest) -> User:
    # `request.user` is a lazy wrapper around it.
    return User.objects.get(username=request.user.get_username())


def _save_changes(user: User, fields: list[str], *, by: User) -> None:
    """Save what the form changed and nothing else: `user` was read before, and its owner may have
    changed the password since."""
    before = User.objects.select_for_update().get(pk=user.pk)
    services.check_authority(before, by=by)
    if not (user.is_superuser and user.is_active):
        services.keep_a_superuser(before)
    user.token_epoch = before.token_epoch + bool(_ENDS_SESSIONS & set(fields))
    user.save(update_fields=[*fields, "token_epoch"])


def _set_active(user: User, by: User, *, is_active: bool) -> None:
    services.set_active(user, is_active=is_active, by=by)


def _remove_second_factor(user: User, by: User) -> None:
    services.check_authority(user, by=by)
    second_factor.remove(user, actor_id=by.id)


class _Credentials(admin.ModelAdmin[Any]):
    """Credentials can be seen and ended, not written; what proves them is not even here."""

    list_select_related = ("user",)
    search_fields = ("user__username_canonical", "user__email_canonical")
    ordering = ("-created_at",)
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Session)
class SessionAdmin(_Credentials):
    list_display = ("user", "created_at", "last_used_at", "address", "agent", "revoked_at")
    exclude = ("refresh_digest",)

    @admin.action(description="End the selected sessions")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Session]) -> None:
        for session in queryset:
            services.end_session(session, actor_id=_staff(request).id)
        self.message_user(request, f"{len(queryset)} sessions ended.")


@admin.register(APIKey)
class APIKeyAdmin(_Credentials):
    list_display = ("user", "name", "hint", "scope", "created_at", "last_used_at", "revoked_at")
    exclude = ("digest", "parent")

    @admin.action(description="Revoke the selected API keys")
    def revoke(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> None:
        for key in queryset:
            services.revoke_key(key, actor_id=request.user.pk)
        self.message_user(request, f"{len(queryset)} API keys revoked.")
