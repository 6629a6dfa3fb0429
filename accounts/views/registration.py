"""Registration, and invitations to it."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import hashing, services
from accounts.models import Link, Purpose
from accounts.serializers import (
    CreatedInvitationResponse,
    InvitationRequest,
    InvitationResponse,
    MessageResponse,
    RegisterRequest,
    UserResponse,
    VerifyRequest,
)
from accounts.views.asking import asking_user
from accounts.views.public import PublicView

# The same for every address, known or not.
_MAILED = {"detail": "If the address can be used, a mail with a link is on its way to it."}


def limit_guesses(request: HttpRequest, link: Link) -> None:
    """Before any hashing: whoever has the link need not be who chose the password."""
    caller = f"link:{link.id}"
    hashing.enforce_limit(request, group="auth", rate=settings.RATE_LIMIT_AUTH, caller=caller)


class RegisterView(PublicView):
    @extend_schema(request=RegisterRequest, responses={201: UserResponse, 202: MessageResponse})
    def post(self, request: Request) -> Response:
        """Create an account, or ask for one, as the operator has set registration."""
        form = RegisterRequest(data=request.data)
        form.is_valid(raise_exception=True)
        # Before any hashing; a typing mistake is no attempt.
        hashing.enforce_limit(request._request, group="register", rate=settings.RATE_LIMIT_REGISTER)
        given = dict(form.validated_data)
        invitation = given.pop("invitation")
        user = services.register(services.Applicant(**given), invitation=invitation)
        if user is None:
            return Response(_MAILED, status=202)
        return Response(UserResponse(user).data, status=201)


class VerifyAddressView(PublicView):
    @extend_schema(request=VerifyRequest, responses={201: UserResponse})
    def post(self, request: Request) -> Response:
        """Create the account whose address the mailed link proves, with the password chosen."""
        form = VerifyRequest(data=request.data)
        form.is_valid(raise_exception=True)
        given = dict(form.validated_data)
        link = services.find_link(Purpose.VERIFY_ADDRESS, given.pop("token"))
        limit_guesses(request._request, link)
        user = services.verify_address(link, **given)
        return Response(UserResponse(user).data, status=201)


class InvitationViewSet(mixins.ListModelMixin, viewsets.GenericViewSet[Link]):
    """Links that let one person register each."""

    required_scope = "admin"
    serializer_class = InvitationResponse
    queryset = Link.objects.none()

    def get_queryset(self) -> QuerySet[Link]:
        return Link.objects.filter(purpose=Purpose.INVITE, revoked_at__isnull=True)

    @extend_schema(request=InvitationRequest, responses={201: CreatedInvitationResponse})
    def create(self, request: Request) -> Response:
        """Invite somebody. The link is shown here only, and mailed if an address is given."""
        form = InvitationRequest(data=request.data)
        form.is_valid(raise_exception=True)
        link = services.invite(email=form.validated_data["email"], actor_id=asking_user(request).id)
        shown = {**InvitationResponse(link).data, "url": services.invitation_url(link)}
        return Response(shown, status=201)

    @extend_schema(responses={204: None})
    def revoke(self, request: Request, **kwargs: Any) -> Response:
        """Take an invitation back."""
        services.revoke_invitation(self.get_object(), actor_id=asking_user(request).id)
        return Response(status=204)
