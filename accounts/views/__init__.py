"""The account routes of the API, one module a subject."""

from accounts.views.auth import JWKSView, LogoutView, MeView, TokenRefreshView, TokenView
from accounts.views.keys import KeyViewSet
from accounts.views.profile import (
    AddressChangeView,
    DeactivateView,
    ExportView,
    PasswordView,
    ProfileView,
)
from accounts.views.public import PublicView
from accounts.views.recovery import PasswordResetConfirmView, PasswordResetRequestView
from accounts.views.registration import InvitationViewSet, RegisterView, VerifyAddressView
from accounts.views.sessions import SessionViewSet
from accounts.views.staff import UserViewSet

__all__ = [
    "AddressChangeView",
    "DeactivateView",
    "ExportView",
    "InvitationViewSet",
    "JWKSView",
    "KeyViewSet",
    "LogoutView",
    "MeView",
    "PasswordResetConfirmView",
    "PasswordResetRequestView",
    "PasswordView",
    "ProfileView",
    "PublicView",
    "RegisterView",
    "SessionViewSet",
    "TokenRefreshView",
    "TokenView",
    "UserViewSet",
    "VerifyAddressView",
]
