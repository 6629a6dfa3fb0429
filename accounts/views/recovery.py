"""The password reset by mail."""

from __future__ import annotations

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.models import Purpose
from accounts.serializers import MessageResponse, ResetConfirmRequest, ResetRequest
from accounts.views.public import PublicView
from sovereigncore import ratelimit

# The same for every address, known or not.
_MAILED = {"detail": "If there is an account with this address, a mail is on its way to it."}
_DONE = {"detail": "The password is changed. Log in with it."}


class PasswordResetRequestView(PublicView):
    @extend_schema(request=ResetRequest, responses={202: MessageResponse})
    def post(self, request: Request) -> Response:
        """Ask for a mail with a link that sets a new password."""
        form = ResetRequest(data=request.data)
        form.is_valid(raise_exception=True)
        ratelimit.enforce(request._request, group="reset", rate=settings.RATE_LIMIT_RESET)
        services.request_reset(**form.validated_data)
        return Response(_MAILED, status=202)


class PasswordResetConfirmView(PublicView):
    @extend_schema(request=ResetConfirmRequest, responses=MessageResponse)
    def post(self, request: Request) -> Response:
        """Set a new password with the token of a mailed link. All sessions and API keys end."""
        form = ResetConfirmRequest(data=request.data)
        form.is_valid(raise_exception=True)
        link = services.find_link(Purpose.RESET_PASSWORD, form.validated_data["token"])
        assert link.user is not None
        form.check_password_of(link.user)
        services.reset_password(link=link, new_password=form.validated_data["new_password"])
        return Response(_DONE)
