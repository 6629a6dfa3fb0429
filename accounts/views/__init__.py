"""The account routes of the API, one module a subject."""

from accounts.views.auth import JWKSView, LogoutView, MeView, TokenRefreshView, TokenView
from accounts.views.keys import KeyViewSet
from accounts.views.public import PublicView
from accounts.views.registration import RegisterView
from accounts.views.sessions import SessionViewSet

__all__ = [
    "JWKSView",
    "KeyViewSet",
    "LogoutView",
    "MeView",
    "PublicView",
    "RegisterView",
    "SessionViewSet",
    "TokenRefreshView",
    "TokenView",
]
