"""The one way from a name or address and a password to a user, for API and admin alike."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.hashers import check_password, make_password
from django.db.models import Q
from django.http import HttpRequest

from accounts.brute_force import Attempt
from accounts.identity import canonical
from accounts.models import Link, Purpose, User
from accounts.validators import MaximumLengthValidator


class CanonicalBackend(ModelBackend):
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """The active user with that name or address and password, or None.

        One hash runs whoever asks: for an unknown name too, so that time tells nothing. Raises
        RateLimited after too many failures from the same network.
        """
        if not username or not password or len(password) > MaximumLengthValidator.max_length:
            return None
        name = canonical(username)
        attempt = Attempt(request=request, name=name) if request is not None else None
        if attempt is not None:
            attempt.check()
        user = self._find(name, password)
        if attempt is not None:
            if user is None:
                attempt.failed()
            else:
                attempt.succeeded()
        if user is not None:
            # Whoever logs in knows the password: a link to reset it helps nobody but a thief.
            Link.objects.all().of_user(user, Purpose.RESET_PASSWORD).revoke()
        return user

    def _find(self, name: str, password: str) -> User | None:
        user = User.objects.filter(Q(username_canonical=name) | Q(email_canonical=name)).first()
        if user is None:
            make_password(password)
            return None
        # The setter upgrades an older hash to the present algorithm and cost.
        setter = _upgrade_for(user) if user.is_active else None
        if not check_password(password, user.password, setter=setter):
            return None
        return user if self.user_can_authenticate(user) else None


def _upgrade_for(user: User) -> Any:
    def upgrade(password: str) -> None:
        upgraded = make_password(password)  # the same password: no session ends
        # Unless it was changed meanwhile: the old one must not come back.
        if User.objects.filter(pk=user.pk, password=user.password).update(password=upgraded):
            user.password = upgraded

    return upgrade
