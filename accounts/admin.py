"""Accounts in the admin site."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as StockUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from accounts.forms import UserAddForm, UserEditForm
from accounts.models import Session, User

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
        ("Record", {"fields": ("last_login", "created_at", "token_epoch")}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "email", "usable_password", "password1", "password2")}),
    )

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if change and _ENDS_SESSIONS & set(form.changed_data):
            obj.token_epoch += 1
        super().save_model(request, obj, form, change)


@admin.register(Session)
class SessionAdmin(admin.ModelAdmin[Session]):
    """Sessions can be seen and ended, not written."""

    list_display = ("user", "created_at", "last_used_at", "address", "agent", "revoked_at")
    list_select_related = ("user",)
    search_fields = ("user__username_canonical", "user__email_canonical")
    ordering = ("-created_at",)
    exclude = ("refresh_digest",)
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    @admin.action(description="End the selected sessions")
    def revoke(self, request: HttpRequest, queryset: Any) -> None:
        self.message_user(request, f"{queryset.revoke()} sessions ended.")
