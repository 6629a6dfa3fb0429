"""Who may use the platform: users and their sessions."""

from __future__ import annotations

import functools
import uuid
from datetime import timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.db import connection, models
from django.db.models import F, Q
from django.utils import timezone

from accounts.identity import canonical

_READ_ON_EVERY_REQUEST = frozenset(
    {"id", "username", "email", "full_name", "is_active", "is_staff", "is_superuser", "token_epoch"}
)


@functools.cache
def _user_of_live_session() -> tuple[str, tuple[models.Field[Any, Any], ...]]:
    """The query that every request begins with, and the user's fields at the end of its row.

    Written out, because composing it costs the ORM several times what running it does. A test
    holds it to the same answers as SessionQuerySet.live().
    """
    fields = tuple(  # in the model's order, as from_db() wants them
        field for field in User._meta.concrete_fields if field.attname in _READ_ON_EVERY_REQUEST
    )
    sql = f"""
        SELECT s.epoch, s.scope, {", ".join(f"u.{field.column}" for field in fields)}
        FROM accounts_user u JOIN accounts_session s ON s.user_id = u.id
        WHERE s.id = %s AND s.revoked_at IS NULL AND s.expires_at > %s
            AND u.is_active AND u.token_epoch = s.epoch
    """  # noqa: S608 - nothing but columns of ours
    return sql, fields


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

    def of_live_session(self, session_id: uuid.UUID) -> User | None:
        """The user of a session that holds now, with its `session_epoch` and `session_scope`.

        The password's hash and the dates are not read until something asks for them.
        """
        sql, fields = _user_of_live_session()
        parameters = [
            Session._meta.pk.get_db_prep_value(session_id, connection),
            connection.ops.adapt_datetimefield_value(timezone.now()),
        ]
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            row = cursor.fetchone()
        if row is None:
            return None
        epoch, scope, *columns = row
        values = [field.to_python(value) for field, value in zip(fields, columns, strict=True)]
        user: User = self.model.from_db(self.db, [field.attname for field in fields], values)
        user.session_epoch, user.session_scope = epoch, scope
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(username_canonical=canonical(username or ""))


class User(AbstractBaseUser, PermissionsMixin):
    """An account. Two spellings that look alike are one identity, held by the database.

    `token_epoch` is in every token; raising it ends every token and session at the next request.
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

    # Only on what UserManager.of_live_session() returns.
    session_epoch: int
    session_scope: str

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["email"]

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

    def get_full_name(self) -> str:
        return self.full_name or self.username

    @property
    def scopes(self) -> frozenset[str]:
        """Every scope the account may put into a credential."""
        return frozenset({"read", "write", "admin"} if self.is_staff else {"read", "write"})


class SessionQuerySet(models.QuerySet["Session"]):
    def for_user(self, user: User) -> SessionQuerySet:
        return self.filter(user=user)

    def live(self) -> SessionQuerySet:
        """Sessions whose tokens hold now: not revoked, not over, of an active user and epoch."""
        return self.filter(
            revoked_at__isnull=True,
            expires_at__gt=timezone.now(),
            user__is_active=True,
            user__token_epoch=F("epoch"),
        )

    def find_live(self, session_id: uuid.UUID) -> Session | None:
        """The live session with its user."""
        return self.live().select_related("user").filter(id=session_id).first()

    def rotate(self, session_id: uuid.UUID, *, spent: bytes, fresh: bytes) -> bool:
        """Exchange the refresh token in one conditional UPDATE: of many at once, one succeeds.

        By the row's own columns only. A condition on the user would make it `id IN (SELECT …)`,
        and PostgreSQL asks such a subquery again of the old snapshot after waiting for the row:
        two would succeed. Callers have asked about the user; a token of an old epoch is dead.
        """
        now = timezone.now()
        own = self.filter(id=session_id, refresh_digest=spent, revoked_at__isnull=True)
        return own.filter(expires_at__gt=now).update(refresh_digest=fresh, last_used_at=now) == 1

    def revoke(self) -> int:
        return self.filter(revoked_at__isnull=True).update(revoked_at=timezone.now())

    def delete_ended(self, *, before_days: int = 7) -> int:
        """Forget sessions that ended over `before_days` ago."""
        limit = timezone.now() - timedelta(days=before_days)
        return self.filter(Q(expires_at__lt=limit) | Q(revoked_at__lt=limit)).delete()[0]


class Session(models.Model):
    """One login and the family of tokens that came from it. Holds a digest, never a token."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sessions"
    )
    refresh_digest = models.BinaryField(max_length=32)
    scope = models.CharField(max_length=64)
    epoch = models.PositiveIntegerField()
    address = models.GenericIPAddressField(null=True)
    agent = models.CharField(max_length=200, blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["user", "-created_at"], name="session_of_user"),
            models.Index(fields=["expires_at"], name="session_ended"),  # delete_ended
        ]

    def __str__(self) -> str:
        return str(self.id)
