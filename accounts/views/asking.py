"""Who asks, on routes that let nobody else in than `BearerAuthentication` did."""

from __future__ import annotations

from rest_framework.request import Request

from accounts.authentication import KeyCredential, SessionCredential
from accounts.models import User


def asking_user(request: Request) -> User:
    assert isinstance(request.user, User)
    return request.user


def asking_credential(request: Request) -> SessionCredential | KeyCredential:
    assert isinstance(request.auth, (SessionCredential, KeyCredential))
    return request.auth
