"""Registration."""

from __future__ import annotations

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.serializers import RegisterRequest, UserResponse
from accounts.views.public import PublicView
from sovereigncore import ratelimit


class RegisterView(PublicView):
    @extend_schema(request=RegisterRequest, responses={201: UserResponse})
    def post(self, request: Request) -> Response:
        """Create an account, where the operator has opened registration."""
        ratelimit.enforce(request._request, group="register", rate=settings.RATE_LIMIT_REGISTER)
        form = RegisterRequest(data=request.data)
        form.is_valid(raise_exception=True)
        user = services.register(**form.validated_data)
        return Response(UserResponse(user).data, status=201)
