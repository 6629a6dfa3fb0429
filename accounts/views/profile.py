"""One's own account."""

from __future__ import annotations

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import services
from accounts.models import Purpose, User
from accounts.serializers import (
    PasswordChangeRequest,
    ProfileRequest,
    ProfileResponse,
    TokenOnlyRequest,
    TokenResponse,
)
from accounts.views.auth import token_response
from accounts.views.public import PublicView
from sovereigncore import ratelimit


def limit_password_guesses(request: Request) -> None:
    """Before any hashing; by account, for these routes know who asks."""
    ratelimit.enforce(
        request._request,
        group="auth",
        rate=settings.RATE_LIMIT_AUTH,
        caller=f"user:{request.user.pk}",
    )


class ProfileView(APIView):
    @extend_schema(responses=ProfileResponse)
    def get(self, request: Request) -> Response:
        """One's own profile."""
        assert isinstance(request.user, User)
        return Response(ProfileResponse(request.user).data)

    @extend_schema(request=ProfileRequest, responses=ProfileResponse)
    def patch(self, request: Request) -> Response:
        """Change the full name; or the address, which needs the password and changes when the
        link mailed to the new one is opened."""
        assert isinstance(request.user, User)
        form = ProfileRequest(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        if "email" in given:
            limit_password_guesses(request)
            services.check_own_password(request.user, given["current_password"])
            services.request_address_change(request.user, email=given["email"])
        if "full_name" in given:
            services.rename(request.user, full_name=given["full_name"])
        return Response(ProfileResponse(request.user).data)


class PasswordView(APIView):
    @extend_schema(request=PasswordChangeRequest, responses=TokenResponse)
    def post(self, request: Request) -> Response:
        """Change the password. All sessions end; the answer holds the tokens of a new one."""
        assert isinstance(request.user, User)
        form = PasswordChangeRequest(data=request.data, context={"user": request.user})
        form.is_valid(raise_exception=True)
        limit_password_guesses(request)
        pair = services.change_password(
            request.user,
            **form.validated_data,
            by=request.auth,  # type: ignore[arg-type]
            request=request._request,
        )
        return token_response(pair)


class AddressChangeView(PublicView):
    @extend_schema(request=TokenOnlyRequest, responses=ProfileResponse)
    def post(self, request: Request) -> Response:
        """Make the address that the mailed link proves one's own."""
        form = TokenOnlyRequest(data=request.data)
        form.is_valid(raise_exception=True)
        link = services.find_link(Purpose.CHANGE_ADDRESS, form.validated_data["token"])
        return Response(ProfileResponse(services.change_address(link)).data)
