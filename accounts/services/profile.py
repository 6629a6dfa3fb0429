"""What one can change about oneself."""

from __future__ import annotations

from django.contrib.auth.hashers import check_password, make_password
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from accounts import mailing
from accounts.authentication import KeyCredential, SessionCredential
from accounts.models import Kind, Link, User
from accounts.services.administration import keep_a_superuser
from accounts.services.links import InvalidLink, WrongPassword, end_links
from accounts.services.recovery import replace_password
from accounts.services.registration import IdentityTaken
from accounts.services.sessions import TokenPair, end_all_sessions, start_session
from monitoring import audit


def check_own_password(user: User, password: str) -> None:
    """Raises WrongPassword. Whoever holds a credential need not be its owner: what would keep the
    owner out, or take their data, asks for the password too."""
    if not check_password(password, user.password):
        raise WrongPassword


def change_password(
    user: User,
    *,
    current_password: str,
    new_password: str,
    by: SessionCredential | KeyCredential,
    request: HttpRequest,
) -> TokenPair:
    """Replace the password. All sessions end; a new one begins, with the asking one's scopes."""
    check_own_password(user, current_password)
    hashed = make_password(new_password)
    with transaction.atomic():
        replace_password(user, hashed)
        audit.record("password.changed", actor_id=user.id, subject_id=user.id)
    return start_session(user, by.scopes, request)


def request_address_change(user: User, *, email: str) -> None:
    """The address changes when the link mailed to the new one is opened, not before."""
    mailing.enqueue(Kind.CHANGE_ADDRESS, email, user=user)


def change_address(link: Link) -> User:
    """Use `link` up and make its address the account's. Raises InvalidLink or IdentityTaken."""
    user = link.user
    assert user is not None
    try:
        with transaction.atomic():
            if not Link.objects.all().redeem(link):
                raise InvalidLink
            locked = User.objects.select_for_update().get(pk=user.pk)
            former = locked.email
            locked.email = link.address
            locked.save(update_fields=["email"])
            end_links(locked)
            mailing.enqueue(Kind.ADDRESS_CHANGED, former, user=locked)
            audit.record("user.address_changed", actor_id=user.id, subject_id=user.id)
    except IntegrityError as error:
        raise IdentityTaken(errors={"email": ["This address is taken."]}) from error
    return locked


def rename(user: User, *, full_name: str) -> None:
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(full_name=full_name)
        audit.record("user.renamed", actor_id=user.id, subject_id=user.id)
    user.full_name = full_name


def deactivate(user: User) -> None:
    """Close one's own account without losing anything; staff can open it again. Raises
    LastSuperuser."""
    with transaction.atomic():
        keep_a_superuser(user)
        end_all_sessions(user, actor_id=user.id)
        User.objects.filter(pk=user.pk).update(is_active=False)
        audit.record("user.deactivated", actor_id=user.id, subject_id=user.id)
