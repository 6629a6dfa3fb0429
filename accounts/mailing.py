"""Sending the mail queue: the worker's job. At least once, each time with the same Message-ID.

Whether an address has an account is looked up here, when whoever asked has their answer already.
"""

from __future__ import annotations

import smtplib
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.errors import MessageError
from typing import Any
from urllib.parse import urlencode, urlsplit

import structlog
from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone

from accounts.identity import canonical
from accounts.models import Kind, Link, Mail, Purpose, Registration, User
from accounts.models.mail import MAX_PENDING
from sovereigncore.api import ServiceError

_BATCH = 50
_BATCH_TIME_S = 60.0
# Longer than a batch can take with its last hand-over; of the job and of each mail.
LEASE = timedelta(minutes=3)
_MAX_AN_HOUR = 5  # of a kind that anybody can ask for, to one address: we fill nobody's mailbox
_ASKED_FOR = (Kind.RESET_PASSWORD, Kind.VERIFY_ADDRESS, Kind.CHANGE_ADDRESS)
_FAULTS_OF_ONE_MAIL = (
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPSenderRefused,
    smtplib.SMTPDataError,
    ValueError,  # an address that cannot be written into a header; UnicodeError is one
    MessageError,
)

log = structlog.get_logger(__name__)


class MailQueueFull(ServiceError):
    status = 503
    code = "mail_queue_full"
    default_detail = "Too many mails wait to be sent. Try again later."


@dataclass(frozen=True, kw_only=True)
class Letter:
    """What to send: which template, to whom, and the link in it if there is one."""

    template: str
    subject: str
    address: str
    link: Link | None = None
    path: str = ""

    @property
    def url(self) -> str:
        """On PUBLIC_BASE_URL whatever Host a request had."""
        if self.link is None:
            return settings.PUBLIC_BASE_URL + self.path
        return f"{settings.PUBLIC_BASE_URL}{self.path}?{urlencode({'token': self.link.token})}"


def enqueue(kind: Kind, address: str, **fields: Any) -> Mail:
    """Put a mail into the queue, in the caller's transaction. Raises MailQueueFull for what
    strangers can ask for: a flood of that must not keep anybody from changing a password."""
    if kind in _ASKED_FOR and Mail.objects.pending().count() >= MAX_PENDING:
        raise MailQueueFull(retry_after_s=60)
    # One spelling of what mail servers take for the same address, so that mails can be counted.
    address = unicodedata.normalize("NFKC", address)
    request_id = structlog.contextvars.get_contextvars().get("request_id", "")
    return Mail.objects.create(kind=kind, address=address, request_id=request_id, **fields)


def is_any_due() -> bool:
    return Mail.objects.all().due().exists()


def send_due() -> int:
    """Send what is due. Stops at the first sign that the server is away: the rest stays due."""
    sent, until_s = 0, time.monotonic() + _BATCH_TIME_S
    connection = get_connection(fail_silently=False)
    try:
        for mail in _claimed():
            # Found by the id of the request that asked for it, from there to here.
            with structlog.contextvars.bound_contextvars(request_id=mail.request_id):
                try:
                    sent += _send(mail, connection)
                except _FAULTS_OF_ONE_MAIL as error:
                    _postpone(mail, error)
                except OSError as error:  # the server's: away, or refusing us; SMTPException is one
                    _postpone(mail, error)
                    break
            if time.monotonic() > until_s:
                break
    finally:
        connection.close()
    return sent


def _claimed() -> Iterator[Mail]:
    for pk in list(Mail.objects.due().values_list("pk", flat=True)[:_BATCH]):
        if Mail.objects.claim(Mail(pk=pk), lease=LEASE):
            yield Mail.objects.select_related("user", "registration", "link").get(pk=pk)


def _send(mail: Mail, connection: Any) -> int:
    now = timezone.now()
    if not mail.is_worthwhile(now):
        Mail.objects.filter(pk=mail.pk).update(given_up_at=now)
        log.warning("mail_given_up", mail=str(mail.id), kind=mail.kind)
        return 0
    letter = None if _is_too_much(mail, now) else _letter(mail)
    if letter is None:
        mail.delete()  # nobody to send it to; whose address it was is nobody's business
        return 0
    connection.send_messages([_message(mail, letter)])
    Mail.objects.filter(pk=mail.pk).update(sent_at=timezone.now(), error="")
    log.info("mail_sent", mail=str(mail.id), kind=mail.kind, attempts=mail.attempts)
    return 1


def _is_too_much(mail: Mail, now: datetime) -> bool:
    """Whether strangers have had enough such mails sent to this address. Each kind by itself:
    registrations in somebody's name must not keep them from a reset, which has its own rule."""
    if mail.kind not in _ASKED_FOR or mail.kind == Kind.RESET_PASSWORD:
        return False
    lately = Mail.objects.filter(address__iexact=mail.address, sent_at__gt=now - timedelta(hours=1))
    return lately.filter(kind=mail.kind).count() >= _MAX_AN_HOUR


def _postpone(mail: Mail, error: Exception) -> None:
    due_at = timezone.now() + mail.pause()
    Mail.objects.filter(pk=mail.pk).update(due_at=due_at, error=type(error).__name__)
    log.warning("mail_failed", mail=str(mail.id), kind=mail.kind, error=type(error).__name__)


def _message(mail: Mail, letter: Letter) -> EmailMultiAlternatives:
    host = urlsplit(settings.PUBLIC_BASE_URL).hostname
    part = f".{letter.link.id}" if letter.link else ""
    wish = mail.registration
    context = {
        "url": letter.url,
        "base_url": settings.PUBLIC_BASE_URL,
        "username": wish.username if wish else "",
    }
    message = EmailMultiAlternatives(
        subject=letter.subject,
        body=render_to_string(f"emails/{letter.template}.txt", context),
        to=[letter.address],
        headers={
            "Message-ID": f"<{mail.id}{part}@{host}>",
            "Auto-Submitted": "auto-generated",  # RFC 3834: nobody's holiday answers this
        },
    )
    message.attach_alternative(
        render_to_string(f"emails/{letter.template}.html", context), "text/html"
    )
    return message


def _letter(mail: Mail) -> Letter | None:
    """What this mail has to say by now; None when there is nothing to say to anybody."""
    match mail.kind:
        case Kind.RESET_PASSWORD:
            return _reset(mail)
        case Kind.VERIFY_ADDRESS:
            return _verification(mail)
        case Kind.CHANGE_ADDRESS:
            return _address_change(mail)
        case Kind.INVITE:
            if mail.link is None or not Link.objects.all().live().filter(pk=mail.link.pk).exists():
                return None
            return Letter(
                template="invite",
                subject="You are invited to SovereignCore",
                address=mail.address,
                link=mail.link,
                path="/register",
            )
        case Kind.PASSWORD_CHANGED:
            return Letter(
                template="password_changed",
                subject="Your password was changed",
                address=mail.address,
                path="/password-reset",
            )
        case _:
            return Letter(
                template="address_changed",
                subject="Your e-mail address was changed",
                address=mail.address,
            )


def _reset(mail: Mail) -> Letter | None:
    user = User.objects.filter(email_canonical=canonical(mail.address), is_active=True).first()
    if user is None:
        return None
    links = Link.objects.of_user(user, Purpose.RESET_PASSWORD)
    lately = links.filter(created_at__gt=timezone.now() - timedelta(hours=1))
    # Where none holds any more, however many a stranger has asked for, the owner gets one.
    if mail.link is None and lately.count() >= _MAX_AN_HOUR and links.live().exists():
        return None
    link = _link_for(mail, Purpose.RESET_PASSWORD, user=user)
    if link is None:
        return None
    return Letter(
        template="reset_password",
        subject="Reset your password",
        address=user.email,  # as its owner wrote it, whatever look-alike was asked with
        link=link,
        path="/password-reset/confirm",
    )


def _verification(mail: Mail) -> Letter | None:
    registration = mail.registration
    if registration is None or not Registration.objects.all().is_newest(registration):
        return None
    if User.objects.filter(email_canonical=registration.email_canonical).exists():
        return _account_exists(mail)
    link = _link_for(
        mail, Purpose.VERIFY_ADDRESS, registration=registration, address=registration.email
    )
    if link is None:
        return None
    return Letter(
        template="verify_address",
        subject="Confirm your e-mail address",
        address=mail.address,
        link=link,
        path="/verify-email",
    )


def _account_exists(mail: Mail) -> Letter:
    return Letter(
        template="account_exists",
        subject="You have an account already",
        address=mail.address,
        path="/password-reset",
    )


def _address_change(mail: Mail) -> Letter | None:
    if mail.user is None or not mail.user.is_active:
        return None
    if User.objects.filter(email_canonical=canonical(mail.address)).exists():
        return _account_exists(mail)
    link = _link_for(mail, Purpose.CHANGE_ADDRESS, user=mail.user, address=mail.address)
    if link is None:
        return None
    return Letter(
        template="change_address",
        subject="Confirm your new e-mail address",
        address=mail.address,
        link=link,
        path="/email-change/confirm",
    )


def _link_for(mail: Mail, purpose: Purpose, **fields: Any) -> Link | None:
    """The link that an earlier attempt made, while it is worth sending; else a new one, which is
    then the only one that holds. None when that link did its work or was ended."""
    if mail.link is not None:
        if mail.link.used_at is not None or mail.link.revoked_at is not None:
            return None
        if mail.link.is_worth_sending(now=timezone.now()):
            return mail.link
    with transaction.atomic():
        if "user" in fields:
            Link.objects.of_user(fields["user"], purpose).revoke()
        else:
            Link.objects.filter(registration=fields["registration"]).revoke()
        link = Link.objects.issue(purpose, **fields)
        Mail.objects.filter(pk=mail.pk).update(link=link)
    return link
