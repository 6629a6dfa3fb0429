"""Logging in and out. Views parse, limit, call a service and answer."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts import hashing, services, tokens
from accounts.authentication import SessionCredential
from accounts.models import APIKey, Session
from accounts.serializers import MeResponse, RefreshRequest, TokenRequest, TokenResponse
from accounts.views.asking import asking_credential, asking_user
from accounts.views.public import PublicView
from sovereigncore.api import ServiceError
from sovereigncore.strict import StrictFormParser, StrictJSONParser


class UnsupportedGrantType(ServiceError):
    status = 400
    code = "unsupported_grant_type"
    default_detail = "grant_type must be password or refresh_token."


def token_response(pair: services.TokenPair) -> Response:
    headers = {"Cache-Control": "no-store", "Pragma": "no-cache"}  # RFC 6749, section 5.1
    return Response(TokenResponse(pair).data, headers=headers)


class TokenView(PublicView):
    parser_classes = (StrictFormParser, StrictJSONParser)

    @extend_schema(request=TokenRequest, responses=TokenResponse)
    def post(self, request: Request) -> Response:
        """Log in with a name or e-mail and a password, or exchange a refresh token (OAuth2)."""
        form = TokenRequest(data=request.data)
        form.is_valid(raise_exception=True)
        given: dict[str, Any] = form.validated_data
        if given["grant_type"] == "refresh_token":
            return token_response(
                services.refresh(refresh_token=given["refresh_token"], scope=given.get("scope"))
            )
        if given["grant_type"] != "password":
            raise UnsupportedGrantType
        # Before any hashing, which is what an attacker would make us do.
        hashing.enforce_limit(request._request, group="auth", rate=settings.RATE_LIMIT_AUTH)
        return token_response(
            services.log_in(
                request=request._request,
                username=given["username"],
                password=given["password"],
                scope=given.get("scope"),
                otp=given.get("otp", ""),
            )
        )


class TokenRefreshView(PublicView):
    @extend_schema(request=RefreshRequest, responses=TokenResponse)
    def post(self, request: Request) -> Response:
        """Exchange a refresh token. The old one is spent; using it again ends the session."""
        form = RefreshRequest(data=request.data)
        form.is_valid(raise_exception=True)
        return token_response(services.refresh(**form.validated_data))


class LogoutView(APIView):
    permission_classes = (IsAuthenticated,)  # whatever its scopes, a credential may end itself

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """End this credential: the session with its tokens, or the API key."""
        user, credential = asking_user(request), asking_credential(request)
        if isinstance(credential, SessionCredential):
            own = Session.objects.for_user(user)
            session = own.get(pk=credential.session_id)
            services.end_session(session, actor_id=user.id)
        else:
            keys = APIKey.objects.for_user(user)
            services.revoke_key(keys.get(pk=credential.key_id), actor_id=user.id)
        return Response(status=204)


class MeView(APIView):
    @extend_schema(responses=MeResponse)
    def get(self, request: Request) -> Response:
        """Who is asking, and what this credential may do."""
        return Response(MeResponse(asking_user(request), context={"request": request}).data)


class JWKSView(PublicView):
    @extend_schema(responses={200: dict[str, list[dict[str, str]]]})
    def get(self, request: Request) -> Response:
        """The public keys that verify access tokens, when they are signed with RS256."""
        return Response(tokens.jwks(), headers={"Cache-Control": "public, max-age=300"})
