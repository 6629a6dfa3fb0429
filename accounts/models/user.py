"""Who may use the platform."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.crypto import salted_hmac

from accounts.identity import canonical

MAX_DAILY_TOKENS = 10**12  # whatever is counted against it stays far inside a bigint


class UserManager(BaseUserManager["User"]):
    def create_user(self, username: str, email: str, password: str, **extra: Any) -> User:
        """Create and return a user. Raises IntegrityError when the name or address is taken."""
        user = self.model(username=username, email=email, **extra)
        user.set_password(password)
        user.save(force_insert=True)
        return user

    def create_superuser(self, username: str, email: str, password: str, **extra: Any) -> User:
        return self.create_user(
            username, email, password, is_staff=True, is_superuser=True, **extra
        )

    def find_named(self, username: str) -> User | None:
        return self.filter(username_canonical=canonical(username)).first()

    def search(self, text: str) -> models.QuerySet[User]:
        """Whose name, address or full name holds `text`; everybody for none."""
        if not text:
            return self.all()
        wanted = canonical(text)
        return self.filter(
            Q(username_canonical__contains=wanted)
            | Q(email_canonical__contains=wanted)
            | Q(full_name__icontains=text)
        )

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(username_canonical=canonical(username or ""))


class User(AbstractBaseUser, PermissionsMixin):
    """An account. Two spellings that look alike are one identity, held by the database.

    `token_epoch` is in every token and every browser's login; raising it ends them at the next
    request.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    username = models.CharField(max_length=50)
    username_canonical = models.CharField(max_length=50, unique=True, editable=False)
    email = models.EmailField(max_length=254)
    email_canonical = models.CharField(max_length=254, unique=True, editable=False)
    full_name = models.CharField(max_length=150, blank=True, default="")
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    token_epoch = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    daily_token_quota = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        validators=[MaxValueValidator(MAX_DAILY_TOKENS)],
        help_text="Tokens a day. Empty: the platform's DAILY_TOKEN_QUOTA. 0: no limit.",
    )

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["email"]

    class Meta:
        indexes = [models.Index(fields=["-created_at", "-id"], name="user_newest_first")]

    def __str__(self) -> str:
        return self.username

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.username_canonical = canonical(self.username)
        self.email_canonical = canonical(self.email)
        fields = kwargs.get("update_fields")
        if fields is not None:
            derived = {f"{name}_canonical" for name in ("username", "email") if name in fields}
            kwargs["update_fields"] = {*fields, *derived}
        super().save(*args, **kwargs)

    def set_password(self, raw_password: str | None) -> None:
        """Sessions that began with the old password end when the new one is saved."""
        super().set_password(raw_password)
        self._raise_epoch()

    def set_unusable_password(self) -> None:
        super().set_unusable_password()
        self._raise_epoch()

    def _raise_epoch(self) -> None:
        if not self._state.adding:
            self.token_epoch += 1

    def get_session_auth_hash(self) -> str:
        """What a browser's login is compared with on every request."""
        held = f"{self.token_epoch}:{self.password}"
        return salted_hmac("accounts.browser_session", held, algorithm="sha256").hexdigest()

    def get_full_name(self) -> str:
        return self.full_name or self.username

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope the account may put into a credential."""
        return frozenset({"read", "write", "admin"} if self.is_staff else {"read", "write"})
