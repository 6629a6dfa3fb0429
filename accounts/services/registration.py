"""How accounts come to be."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from urllib.parse import urlencode

import structlog
from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.db import IntegrityError, transaction

from accounts import mailing
from accounts.identity import canonical
from accounts.models import Kind, Link, Purpose, Registration, User
from accounts.services.links import InvalidLink, WrongPassword, find_link
from monitoring import audit, metrics
from sovereigncore.api import ServiceError

log = structlog.get_logger(__name__)


class RegistrationClosed(ServiceError):
    status = 403
    code = "registration_closed"
    default_detail = "Registration is closed on this server. Ask its operator for an account."


class IdentityTaken(ServiceError):
    status = 409
    code = "identity_taken"
    default_detail = "That name or address is taken."


class InvitationNeeded(ServiceError):
    status = 403
    code = "invitation_needed"
    default_detail = "Registration on this server needs an invitation."


class InvitationForAnother(ServiceError):
    status = 403
    code = "invitation_for_another"
    default_detail = "This invitation is for another e-mail address."


@dataclass(frozen=True, kw_only=True)
class Applicant:
    """Who wants an account. The password is what was typed."""

    username: str
    email: str
    password: str
    full_name: str = ""


def register(applicant: Applicant, *, invitation: str = "") -> User | None:
    """Make an account at once, or, where addresses are verified, note the wish: None then.

    Raises RegistrationClosed, InvitationNeeded, InvalidLink, InvitationForAnother or
    IdentityTaken. In `verified` mode nothing here depends on who has an account already.
    """
    check_open(invitation=invitation)
    if invitation:
        return _register_invited(applicant, invitation)
    hashed = make_password(applicant.password)  # slow, so before any transaction
    if settings.REGISTRATION_MODE == "verified":
        _note_wish(applicant, hashed)
        return None
    return _make_account(applicant, hashed)


def check_open(*, invitation: str) -> None:
    """Raise unless somebody with this invitation, or none, may register."""
    if settings.REGISTRATION_MODE == "closed":
        raise RegistrationClosed
    if invitation:
        find_link(Purpose.INVITE, invitation)
    elif settings.REGISTRATION_MODE == "invite":
        raise InvitationNeeded


def _register_invited(applicant: Applicant, token: str) -> User:
    link = find_link(Purpose.INVITE, token)
    if link.address and canonical(link.address) != canonical(applicant.email):
        raise InvitationForAnother
    return _make_account(applicant, make_password(applicant.password), link)


def _note_wish(applicant: Applicant, hashed: str) -> None:
    """The newest wish for an address is the one that counts: who sends its mail, or is shown its
    link, looks whether it is. Nothing is done to older ones here, where it would take its time and
    lock rows."""
    with transaction.atomic():
        registration = Registration.objects.create(
            username=applicant.username,
            email=applicant.email,
            email_canonical=canonical(applicant.email),
            full_name=applicant.full_name,
            password=hashed,
        )
        mailing.enqueue(Kind.VERIFY_ADDRESS, applicant.email, registration=registration)


def verify_address(link: Link, *, password: str, username: str = "") -> User:
    """Make the account whose address `link` proves. `username` replaces the one wished for, when
    somebody else has that by now.

    The password shows that address and wish are one person's: else anybody could wish for an
    account with another's address, and the click of its owner would give it to them.
    Raises WrongPassword, IdentityTaken or RegistrationClosed, and the link still holds; or
    InvalidLink.
    """
    if settings.REGISTRATION_MODE not in ("open", "verified"):
        raise RegistrationClosed
    wish = link.registration
    assert wish is not None
    if not check_password(password, wish.password):
        raise WrongPassword("This is not the password that was chosen at registration.")
    applicant = Applicant(
        username=username or wish.username, email=wish.email, password="", full_name=wish.full_name
    )
    user = _make_account(applicant, wish.password, link)
    wish.delete()
    return user


def _make_account(applicant: Applicant, hashed: str, link: Link | None = None) -> User:
    user = User(
        username=applicant.username,
        email=applicant.email,
        full_name=applicant.full_name,
        password=hashed,
    )
    try:
        with transaction.atomic():
            if link is not None and not Link.objects.all().redeem(link):
                raise InvalidLink
            user.save(force_insert=True)
            audit.record("user.registered", actor_id=user.id, subject_id=user.id)
    except IntegrityError as error:
        taken = taken_fields(applicant.username, applicant.email)
        raise IdentityTaken(errors=taken) from error
    metrics.REGISTRATIONS.inc()
    log.info("registered", user_id=str(user.id))
    return user


def invite(*, email: str, actor_id: uuid.UUID) -> Link:
    """A link that lets one person register, mailed to `email` if there is one."""
    with transaction.atomic():
        link = Link.objects.all().issue(Purpose.INVITE, address=email)
        if email:
            mailing.enqueue(Kind.INVITE, email, link=link)
        audit.record("invitation.made", actor_id=actor_id, subject_id=link.id)
    return link


def invitation_url(link: Link) -> str:
    return f"{settings.PUBLIC_BASE_URL}/register?{urlencode({'token': link.token})}"


def revoke_invitation(link: Link, *, actor_id: uuid.UUID) -> None:
    with transaction.atomic():
        if Link.objects.filter(pk=link.pk).revoke():
            audit.record("invitation.revoked", actor_id=actor_id, subject_id=link.id)


def taken_fields(username: str, email: str) -> dict[str, list[str]]:
    """Which of the two it was: asked only after the database refused."""
    taken = {}
    if User.objects.filter(username_canonical=canonical(username)).exists():
        taken["username"] = ["This name is taken."]
    if User.objects.filter(email_canonical=canonical(email)).exists():
        taken["email"] = ["This address is taken."]
    return taken
