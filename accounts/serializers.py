"""What account routes take and give."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError as DjangoValidationError
from django.utils import timezone
from rest_framework import serializers

from accounts.models import APIKey, Link, Session, User
from accounts.models.user import MAX_DAILY_TOKENS
from accounts.validators import (
    MAX_ADDRESS_LENGTH,
    validate_address,
    validate_line,
    validate_name,
)
from sovereigncore.strict import (
    StrictCharField,
    StrictDateTimeField,
    StrictIntegerField,
    StrictSerializer,
)

_WORD = r"[\x21\x23-\x5b\x5d-\x7e]+"  # RFC 6749, section 3.3
_SCOPE = rf"({_WORD}( {_WORD})*)?"


class TokenRequest(serializers.Serializer[Any]):
    """RFC 6749, section 4.3.2. Unknown parameters are ignored, as section 3.2 demands."""

    grant_type = StrictCharField(default="password", max_length=40)
    username = StrictCharField(required=False, max_length=254)
    password = StrictCharField(required=False, max_length=1024, trim_whitespace=False)
    refresh_token = StrictCharField(required=False, max_length=4096)
    scope = StrictCharField(required=False, allow_blank=True, max_length=64)
    otp = StrictCharField(required=False, allow_blank=True, max_length=40)

    def validate_scope(self, value: str) -> str:
        if re.fullmatch(_SCOPE, value) is None:
            raise serializers.ValidationError("Scopes are words with one space between them.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        needed = {"password": ["username", "password"], "refresh_token": ["refresh_token"]}
        missing = [name for name in needed.get(attrs["grant_type"], []) if name not in attrs]
        if missing:
            raise serializers.ValidationError(
                {name: ["This field is required."] for name in missing}
            )
        return attrs


class RefreshRequest(StrictSerializer):
    refresh_token = StrictCharField(max_length=4096)


class TokenResponse(serializers.Serializer[Any]):
    access_token = serializers.CharField()
    refresh_token = serializers.CharField()
    token_type = serializers.CharField(default="bearer")
    expires_in = serializers.IntegerField(source="expires_in_s")
    scope = serializers.CharField()


def _check_new_password(field: str, password: str, user: User) -> None:
    try:
        validate_password(password, user)
    except DjangoValidationError as error:
        raise serializers.ValidationError({field: error.messages}) from error


class _Password(StrictCharField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=1024, trim_whitespace=False, **kwargs)


class _Address(StrictCharField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=MAX_ADDRESS_LENGTH, validators=[validate_address], **kwargs)


class _Token(StrictCharField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_length=200, **kwargs)


class _FullName(StrictCharField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False, allow_blank=True, max_length=150, validators=[validate_line], **kwargs
        )


class RegisterRequest(StrictSerializer):
    username = StrictCharField(max_length=50, validators=[validate_name])
    email = _Address()
    password = _Password()
    full_name = _FullName(default="")
    invitation = _Token(required=False, allow_blank=True, default="")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        user = User(username=attrs["username"], email=attrs["email"], full_name=attrs["full_name"])
        _check_new_password("password", attrs["password"], user)
        return attrs


class VerifyRequest(StrictSerializer):
    token = _Token()
    password = _Password()
    username = StrictCharField(
        required=False, allow_blank=True, max_length=50, default="", validators=[validate_name]
    )


class TokenOnlyRequest(StrictSerializer):
    token = _Token()


class ResetRequest(StrictSerializer):
    email = _Address()


class ResetConfirmRequest(StrictSerializer):
    token = _Token()
    new_password = _Password()

    def check_password_of(self, user: User) -> None:
        _check_new_password("new_password", self.validated_data["new_password"], user)


class PasswordChangeRequest(StrictSerializer):
    current_password = _Password()
    new_password = _Password()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        _check_new_password("new_password", attrs["new_password"], self.context["user"])
        return attrs


class ProfileRequest(StrictSerializer):
    full_name = _FullName()
    email = _Address(required=False)
    current_password = _Password(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "email" in attrs and "current_password" not in attrs:
            message = "Changing the address needs the password too."
            raise serializers.ValidationError({"current_password": [message]})
        return attrs


class PasswordRequest(StrictSerializer):
    current_password = _Password()


class InvitationRequest(StrictSerializer):
    email = _Address(required=False, allow_blank=True, default="")


class InvitationResponse(serializers.ModelSerializer[Link]):
    class Meta:
        model = Link
        fields = ("id", "address", "created_at", "expires_at", "used_at")


class CreatedInvitationResponse(InvitationResponse):
    url = serializers.URLField()

    class Meta(InvitationResponse.Meta):
        fields = (*InvitationResponse.Meta.fields, "url")  # type: ignore[assignment]


class MessageResponse(serializers.Serializer[Any]):
    detail = serializers.CharField()


class ProfileResponse(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "username", "email", "full_name", "created_at", "last_login")


class UserResponse(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = ("id", "username", "email", "full_name", "created_at")


class MeResponse(serializers.ModelSerializer[User]):
    disabled = serializers.SerializerMethodField()
    scopes = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = ("username", "email", "full_name", "disabled", "scopes")

    def get_disabled(self, user: User) -> bool:
        return not user.is_active

    def get_scopes(self, user: User) -> list[str]:
        """Those of the credential in use, which may be fewer than the account's."""
        return sorted(self.context["request"].auth.scopes)


class SearchRequest(StrictSerializer):
    search = StrictCharField(allow_blank=True, max_length=100)


class QuotaRequest(StrictSerializer):
    daily_token_quota = StrictIntegerField(min_value=0, max_value=MAX_DAILY_TOKENS, allow_null=True)


class AccountResponse(serializers.ModelSerializer[User]):
    disabled = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = (
            *("id", "username", "email", "full_name", "disabled"),
            *("is_staff", "daily_token_quota", "created_at", "last_login"),
        )

    def get_disabled(self, user: User) -> bool:
        return not user.is_active


class SessionResponse(serializers.ModelSerializer[Session]):
    scopes = serializers.SerializerMethodField()
    current = serializers.SerializerMethodField()

    class Meta:
        model = Session
        fields = (
            *("id", "created_at", "last_used_at", "expires_at"),
            *("address", "agent", "scopes", "current"),
        )

    def get_scopes(self, session: Session) -> list[str]:
        return session.scope.split()

    def get_current(self, session: Session) -> bool:
        """Whether it is the session that asks."""
        return getattr(self.context["request"].auth, "session_id", None) == session.id


class KeyRequest(StrictSerializer):
    name = StrictCharField(max_length=100, validators=[validate_line])
    scopes = serializers.ListField(
        child=serializers.ChoiceField(["read", "write", "admin"]), min_length=1, max_length=3
    )
    expires_at = StrictDateTimeField(required=False, allow_null=True, default=None)

    def validate_scopes(self, value: list[str]) -> frozenset[str]:
        return frozenset(value)

    def validate_expires_at(self, value: datetime | None) -> datetime | None:
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError("This is in the past.")
        return value


class KeyResponse(serializers.ModelSerializer[APIKey]):
    scopes = serializers.SerializerMethodField()

    class Meta:
        model = APIKey
        fields = (
            *("id", "name", "hint", "scopes"),
            *("created_at", "expires_at", "last_used_at", "revoked_at"),
        )

    def get_scopes(self, key: APIKey) -> list[str]:
        return key.scope.split()


class CreatedKeyResponse(KeyResponse):
    key = serializers.CharField()

    class Meta(KeyResponse.Meta):
        fields = (*KeyResponse.Meta.fields, "key")  # type: ignore[assignment]
