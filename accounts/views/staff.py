"""Accounts as staff sees them."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import services
from accounts.models import User
from accounts.serializers import AccountResponse, QuotaRequest, SearchRequest
from accounts.views.asking import asking_credential, asking_user


class UserViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet[User]):
    """All accounts, newest first; for staff. One's own is shown to its owner too."""

    serializer_class = AccountResponse
    queryset = User.objects.none()
    lookup_field = "username"
    list_parameters = ("search",)

    @property
    def required_scope(self) -> str:
        return "read" if self.action in ("retrieve", "metadata") else "admin"

    def get_queryset(self) -> QuerySet[User]:
        return User.objects.all()

    def get_object(self) -> User:
        """Somebody else's account is the same 404 as none, to whoever may not administer."""
        user = User.objects.find_named(self.kwargs["username"])
        may_see = "admin" in asking_credential(self.request).scopes
        if user is None or not (may_see or user == asking_user(self.request)):
            raise Http404
        return user

    @extend_schema(parameters=[OpenApiParameter("search", str)])
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Search by name, address or full name."""
        form = SearchRequest(data={"search": request.query_params.get("search", "")})
        form.is_valid(raise_exception=True)
        found = User.objects.search(form.validated_data["search"])
        page = self.paginate_queryset(found)
        return self.get_paginated_response(AccountResponse(page, many=True).data)

    @extend_schema(request=QuotaRequest, responses=AccountResponse)
    def set_quota(self, request: Request, **kwargs: Any) -> Response:
        """Set how many tokens a day the account may use: null for the platform's own number, 0 for
        no limit."""
        user = self.get_object()
        form = QuotaRequest(data=request.data)
        form.is_valid(raise_exception=True)
        user = services.set_quota(user, **form.validated_data, by=asking_user(request))
        return Response(AccountResponse(user).data)

    @extend_schema(request=None, responses=AccountResponse)
    def disable(self, request: Request, **kwargs: Any) -> Response:
        """Refuse the account from its next request on, and end its sessions."""
        return self._set_active(request, is_active=False)

    @extend_schema(request=None, responses=AccountResponse)
    def enable(self, request: Request, **kwargs: Any) -> Response:
        """Let the account in again. Its API keys hold again; its sessions do not."""
        return self._set_active(request, is_active=True)

    @extend_schema(request=None, responses={204: None})
    def sign_out(self, request: Request, **kwargs: Any) -> Response:
        """End all sessions of the account."""
        services.sign_out(self.get_object(), by=asking_user(request))
        return Response(status=204)

    @extend_schema(request=None, responses={202: None})
    def send_reset(self, request: Request, **kwargs: Any) -> Response:
        """Mail the account's owner a link that sets a new password."""
        services.send_reset(self.get_object(), by=asking_user(request))
        return Response(status=202)

    def _set_active(self, request: Request, *, is_active: bool) -> Response:
        by = asking_user(request)
        user = services.set_active(self.get_object(), is_active=is_active, by=by)
        return Response(AccountResponse(user).data)
