"""One's own account."""

from __future__ import annotations

from django.conf import settings
from django.http import FileResponse, HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import hashing, services
from accounts.models import Purpose, User
from accounts.serializers import (
    PasswordChangeRequest,
    PasswordRequest,
    ProfileRequest,
    ProfileResponse,
    TokenOnlyRequest,
    TokenResponse,
)
from accounts.views.asking import asking_credential, asking_user
from accounts.views.auth import token_response
from accounts.views.public import PublicView
from sovereigncore import ratelimit

_EXPORTS = "5/h"


def limit_password_guesses(request: Request) -> None:
    """Before any hashing; by account, for these routes know who asks."""
    hashing.enforce_limit(
        request._request,
        group="auth",
        rate=settings.RATE_LIMIT_AUTH,
        caller=f"user:{request.user.pk}",
    )


class ProfileView(APIView):
    @extend_schema(responses=ProfileResponse)
    def get(self, request: Request) -> Response:
        """One's own profile."""
        return _shown(asking_user(request))

    @extend_schema(request=ProfileRequest, responses=ProfileResponse)
    def patch(self, request: Request) -> Response:
        """Change the full name; or the address, which needs the password and changes when the
        link mailed to the new one is opened."""
        user = asking_user(request)
        form = ProfileRequest(data=request.data)
        form.is_valid(raise_exception=True)
        given = form.validated_data
        if "email" in given:
            limit_password_guesses(request)
            services.check_own_password(user, given["current_password"])
            services.request_address_change(user, email=given["email"])
        if "full_name" in given:
            services.rename(user, full_name=given["full_name"])
        return _shown(user)

    @extend_schema(request=PasswordRequest, responses={204: None})
    def delete(self, request: Request) -> Response:
        """Erase oneself: the account and everything held about it. Needs the password."""
        user = _with_password(request)
        services.erase_user(user, by=user)
        return Response(status=204)


def _shown(user: User) -> Response:
    # Authentication leaves the dates out; asked for one by one they would be a query each.
    user.refresh_from_db(fields=["created_at", "last_login"])
    return Response(ProfileResponse(user).data)


def _with_password(request: Request) -> User:
    """Whoever asks, once they have given their password too."""
    form = PasswordRequest(data=request.data)
    form.is_valid(raise_exception=True)
    limit_password_guesses(request)
    user = asking_user(request)
    services.check_own_password(user, form.validated_data["current_password"])
    return user


class DeactivateView(APIView):
    @extend_schema(request=PasswordRequest, responses={204: None})
    def post(self, request: Request) -> Response:
        """Close the account and keep what is in it; staff can open it again."""
        services.deactivate(_with_password(request))
        return Response(status=204)


class ExportView(APIView):
    @extend_schema(responses={(200, "application/zip"): OpenApiTypes.BINARY})
    def get(self, request: Request) -> HttpResponseBase:
        """Everything held about oneself, as a ZIP of JSON files. Five times an hour at most."""
        caller = f"user:{request.user.pk}"
        ratelimit.enforce(request._request, group="export", rate=_EXPORTS, caller=caller)
        user = asking_user(request)
        archive = services.export_user(user, actor_id=user.id)
        return FileResponse(archive, as_attachment=True, filename=f"{user.username}.zip")


class PasswordView(APIView):
    @extend_schema(request=PasswordChangeRequest, responses=TokenResponse)
    def post(self, request: Request) -> Response:
        """Change the password. All sessions end; the answer holds the tokens of a new one."""
        user = asking_user(request)
        form = PasswordChangeRequest(data=request.data, context={"user": user})
        form.is_valid(raise_exception=True)
        limit_password_guesses(request)
        pair = services.change_password(
            user,
            **form.validated_data,
            by=asking_credential(request),
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
