"""The mail queue: nothing lost, nothing told to anybody else, nobody held up by another's mail."""

from __future__ import annotations

import os
import re
import smtplib
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import time_machine
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.core.mail.message import sanitize_address
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from accounts import mailing
from accounts.maintenance import flush_mails
from accounts.models import Kind, Link, Mail, Purpose, Registration, User
from accounts.models.mail import WORTHWHILE
from accounts.tests.mails import (
    ASK,
    ASK_PAGE,
    BASE,
    CONFIRM_PAGE,
    INVITATIONS,
    NEW_PASSWORD,
    PROFILE,
    REGISTER,
    REGISTER_PAGE,
    ask_reset,
    check_invalid_link,
    client,
    confirm_reset,
    deliver,
    deliver_one,
    dump,
    html_of,
    link_in,
    login_status,
    mailed_reset,
    path_of,
    token_in,
)
from conftest import PASSWORD
from monitoring import jobs
from sovereigncore.tests.problems import REQUEST_ID, check_problem
from sovereigncore.tests.test_settings import Loader
from tests.log_capture import LogCapture
from tests.parallel import in_parallel
from tests.smtp_sink import Behaviour, SMTPSink

SECOND = timedelta(seconds=1)
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"
FILES = "accounts.outbox.EmailBackend"
HERE = "accounts.tests.test_mail_queue"


@pytest.fixture(autouse=True)
def _roomy(settings: Any) -> None:
    settings.RATE_LIMIT_RESET = settings.RATE_LIMIT_REGISTER = "1000/h"


@pytest.fixture
def sink(settings: Any) -> Iterator[SMTPSink]:
    """A real SMTP server, and settings that point at it."""
    with SMTPSink() as server:
        settings.EMAIL_BACKEND, settings.EMAIL_TIMEOUT = SMTP, 10
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        yield server


@pytest.fixture
def dead_server(settings: Any) -> Iterator[None]:
    """A port that refuses connections, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        settings.EMAIL_BACKEND = SMTP
        settings.EMAIL_HOST, settings.EMAIL_PORT = bound.getsockname()
        yield


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    return Loader(tmp_path, monkeypatch)


class WorkerKilled(BaseException):
    pass


class KilledAfterHandOver(EmailBackend):
    def send_messages(self, messages: Any) -> int:
        super().send_messages(messages)
        raise WorkerKilled


class KilledBeforeHandOver(EmailBackend):
    def send_messages(self, messages: Any) -> int:
        raise WorkerKilled


def queue(*addresses: str) -> list[Mail]:
    """Notices to these addresses, due in this order."""
    now = timezone.now()
    return [
        mailing.enqueue(
            Kind.PASSWORD_CHANGED, address, due_at=now - timedelta(seconds=len(addresses) - place)
        )
        for place, address in enumerate(addresses)
    ]


def state(queued: Mail) -> Mail:
    return Mail.objects.get(pk=queued.pk)


# --- What a mail looks like ------------------------------------------------------------------


def test_a_mail_has_two_parts_and_says_that_a_machine_sent_it(alice: User, settings: Any) -> None:
    ask_reset()
    message = deliver_one()
    (queued,) = Mail.objects.all()
    (link,) = Link.objects.all()
    assert message.subject == "Reset your password"
    assert message.to == ["alice@example.org"]
    assert message.cc == message.bcc == []
    assert message.from_email == settings.DEFAULT_FROM_EMAIL
    parsed = message.message()
    assert parsed.get_content_type() == "multipart/alternative"
    parts: Any = parsed.get_payload()
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    assert parsed["Auto-Submitted"] == "auto-generated"
    assert parsed["Message-ID"] == f"<{queued.id}.{link.id}@127.0.0.1>"
    assert parsed["Reply-To"] is None
    assert re.fullmatch(rf"{re.escape(BASE)}{CONFIRM_PAGE}\?token=[0-9a-f]{{64}}", link_in(message))


def test_no_mail_calls_home(alice: User) -> None:
    ask_reset()
    message = deliver_one()
    html = html_of(message)
    assert set(re.findall(r'(?:href|src)="([^"]+)"', html)) == {link_in(message)}
    assert not re.search(r"<(img|link|script|iframe)|url\(", html)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_mail_can_be_written(alice: User, kind: Kind) -> None:
    wish = Registration.objects.create(
        username="zoe", email="zoe@example.org", email_canonical="zoe@example.org", password="x"
    )
    fields: dict[str, Any] = {"address": "zoe@example.org"}
    match kind:
        case Kind.RESET_PASSWORD:
            fields = {"address": "alice@example.org"}
        case Kind.VERIFY_ADDRESS:
            fields["registration"] = wish
        case Kind.INVITE:
            fields["link"] = Link.objects.all().issue(Purpose.INVITE, address="zoe@example.org")
        case _:
            fields["user"] = alice
    queued = mailing.enqueue(kind, **fields)
    message = deliver_one()
    assert message.to == [fields["address"]]
    assert str(queued.id) in message.extra_headers["Message-ID"]
    for text in (str(message.body), html_of(message), str(message.subject)):
        assert "{{" not in text
        assert "{%" not in text
        assert "None" not in text
    assert f"Sent by SovereignCore at {BASE}." in message.body
    assert f"Sent by SovereignCore at {BASE}." in html_of(message)


def test_the_message_id_is_on_our_host(alice: User, settings: Any) -> None:
    settings.PUBLIC_BASE_URL = "https://ai.example.org:8443"
    ask_reset()
    message = deliver_one()
    assert message.extra_headers["Message-ID"].endswith("@ai.example.org>")


# --- At least once ---------------------------------------------------------------------------


def test_the_worker_knows_the_job() -> None:
    (job,) = (job for job in jobs.all_jobs() if job.name == "send_mails")
    assert (job.run, job.is_needed) == (mailing.send_due, mailing.is_any_due)
    assert job.interval == timedelta(seconds=2)
    assert job.lease == mailing.LEASE


def test_an_idle_queue_needs_no_worker(alice: User) -> None:
    assert not mailing.is_any_due()
    ask_reset()
    assert mailing.is_any_due()
    deliver()
    assert not mailing.is_any_due()


def test_what_was_sent_is_not_sent_again(alice: User, frozen_time: time_machine.Traveller) -> None:
    ask_reset()
    assert len(deliver()) == 1
    frozen_time.shift(timedelta(hours=2))
    assert deliver() == []


def test_a_worker_killed_after_the_hand_over_sends_the_same_mail_again(
    alice: User, settings: Any, frozen_time: time_machine.Traveller
) -> None:
    ask_reset()
    settings.EMAIL_BACKEND = f"{HERE}.KilledAfterHandOver"
    with pytest.raises(WorkerKilled):
        mailing.send_due()
    settings.EMAIL_BACKEND = LOCMEM
    frozen_time.shift(mailing.LEASE - SECOND)
    assert deliver() == []
    frozen_time.shift(SECOND)
    deliver_one()
    first, second = mail.outbox
    assert first.extra_headers["Message-ID"] == second.extra_headers["Message-ID"]
    assert first.body == second.body
    assert confirm_reset(token_in(second)).status_code == 200


def test_a_worker_killed_before_the_hand_over_loses_nothing(
    alice: User, settings: Any, frozen_time: time_machine.Traveller
) -> None:
    ask_reset()
    settings.EMAIL_BACKEND = f"{HERE}.KilledBeforeHandOver"
    with pytest.raises(WorkerKilled):
        mailing.send_due()
    settings.EMAIL_BACKEND = LOCMEM
    frozen_time.shift(mailing.LEASE)
    assert confirm_reset(token_in(deliver_one())).status_code == 200


def test_a_link_too_old_to_be_sent_again_is_replaced(
    alice: User, settings: Any, frozen_time: time_machine.Traveller
) -> None:
    ask_reset()
    settings.EMAIL_BACKEND = f"{HERE}.KilledAfterHandOver"
    with pytest.raises(WorkerKilled):
        mailing.send_due()
    settings.EMAIL_BACKEND = LOCMEM
    frozen_time.shift(timedelta(minutes=5) + SECOND)
    deliver_one()
    first, second = mail.outbox
    assert first.extra_headers["Message-ID"] != second.extra_headers["Message-ID"]
    check_invalid_link(confirm_reset(token_in(first)))
    assert confirm_reset(token_in(second)).status_code == 200


def test_a_link_that_was_used_is_not_replaced_when_its_mail_is_sent_again(
    alice: User, settings: Any, frozen_time: time_machine.Traveller
) -> None:
    """The mail did arrive: a second one with a new link would be good for nobody but a thief."""
    ask_reset()
    settings.EMAIL_BACKEND = f"{HERE}.KilledAfterHandOver"
    with pytest.raises(WorkerKilled):
        mailing.send_due()
    assert confirm_reset(token_in(mail.outbox[0])).status_code == 200
    settings.EMAIL_BACKEND = LOCMEM
    frozen_time.shift(mailing.LEASE)
    assert [message.subject for message in deliver()] == ["Your password was changed"]
    assert not Link.objects.all().live().exists()


def test_with_another_secret_key_a_mail_carries_a_link_that_holds(
    alice: User, settings: Any, frozen_time: time_machine.Traveller
) -> None:
    ask_reset()
    settings.EMAIL_BACKEND = f"{HERE}.KilledBeforeHandOver"
    with pytest.raises(WorkerKilled):
        mailing.send_due()
    settings.EMAIL_BACKEND = LOCMEM
    settings.SECRET_KEY = settings.SECRET_KEY[::-1]
    frozen_time.shift(mailing.LEASE)
    assert confirm_reset(token_in(deliver_one())).status_code == 200


def test_a_revoked_invitation_is_not_mailed(as_staff: APIClient) -> None:
    made = as_staff.post(INVITATIONS, {"email": "zoe@example.org"}).json()
    assert as_staff.delete(f"{INVITATIONS}/{made['id']}").status_code == 204
    assert deliver() == []


@pytest.mark.django_db(transaction=True)
def test_two_workers_send_each_mail_once() -> None:
    queue(*(f"a{number}@example.org" for number in range(30)))
    counts = in_parallel(2, lambda _number: mailing.send_due())
    assert sum(counts) == len(mail.outbox) == 30
    assert len({message.to[0] for message in mail.outbox}) == 30
    assert set(Mail.objects.values_list("attempts", flat=True)) == {1}


@pytest.mark.django_db(transaction=True)
def test_one_mail_is_claimed_by_one_of_many() -> None:
    (queued,) = queue("a@example.org")
    claims = in_parallel(
        20, lambda _number: Mail.objects.claim(Mail(pk=queued.pk), lease=mailing.LEASE)
    )
    assert claims.count(True) == 1


# --- Servers that fail -----------------------------------------------------------------------


@pytest.mark.usefixtures("db", "dead_server")
def test_while_the_server_is_away_the_rest_of_the_queue_is_left_alone(
    frozen_time: time_machine.Traveller, logs: LogCapture
) -> None:
    first, second, third = queue("a@example.org", "b@example.org", "c@example.org")
    assert mailing.send_due() == 0
    assert state(first).error == "ConnectionRefusedError"
    assert state(first).due_at > timezone.now()
    for untouched in (second, third):
        assert (state(untouched).attempts, state(untouched).due_at) == (0, untouched.due_at)
    (event,) = logs.events("mail_failed")
    assert event["error"] == "ConnectionRefusedError"


@pytest.mark.usefixtures("db", "dead_server")
def test_the_pauses_double_up_to_an_hour(frozen_time: time_machine.Traveller) -> None:
    (queued,) = queue("a@example.org")
    pauses_s = []
    for attempt in range(1, 12):
        assert mailing.send_due() == 0
        tried = state(queued)
        assert (tried.attempts, tried.sent_at, tried.given_up_at) == (attempt, None, None)
        pauses_s.append(int((tried.due_at - timezone.now()).total_seconds()))
        frozen_time.move_to(tried.due_at - SECOND)
        assert not mailing.is_any_due()
        frozen_time.move_to(tried.due_at)
    assert pauses_s == [20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]


def test_when_the_server_is_back_everything_is_sent(
    db: None, dead_server: None, settings: Any, frozen_time: time_machine.Traveller
) -> None:
    queue("a@example.org", "b@example.org")
    assert mailing.send_due() == 0
    frozen_time.shift(timedelta(minutes=1))
    with SMTPSink() as server:
        settings.EMAIL_PORT = server.port
        assert mailing.send_due() == 2
    assert sorted(each.recipients for each in server.received) == [
        ("a@example.org",),
        ("b@example.org",),
    ]
    assert {queued.error for queued in Mail.objects.all()} == {""}


def test_a_server_gets_what_was_written(alice: User, sink: SMTPSink, settings: Any) -> None:
    ask_reset()
    assert mailing.send_due() == 1
    (delivery,) = sink.received
    assert delivery.sender == "no-reply@localhost"
    assert delivery.recipients == ("alice@example.org",)
    received = delivery.message
    assert (received["From"], received["To"]) == (settings.DEFAULT_FROM_EMAIL, "alice@example.org")
    text, html = received.get_body(("plain",)), received.get_body(("html",))
    assert text is not None
    assert html is not None
    (url,) = re.findall(r"\S+token=\S+", text.get_content())
    assert f'href="{url}"' in html.get_content()
    assert client.get(path_of(url)).status_code == 200


def test_a_refused_recipient_holds_up_nobody_else(db: None, sink: SMTPSink) -> None:
    sink.refused_recipients.add("b@example.org")
    first, refused, last = queue("a@example.org", "b@example.org", "c@example.org")
    assert mailing.send_due() == 2
    assert [each.recipients for each in sink.received] == [("a@example.org",), ("c@example.org",)]
    assert (state(refused).sent_at, state(refused).error) == (None, "SMTPRecipientsRefused")
    assert state(refused).due_at > timezone.now()
    for sent in (first, last):
        assert state(sent).sent_at is not None


def test_a_recipient_taken_at_last_gets_the_same_mail(
    db: None, sink: SMTPSink, frozen_time: time_machine.Traveller
) -> None:
    sink.refused_recipients.add("a@example.org")
    (queued,) = queue("a@example.org")
    assert mailing.send_due() == 0
    sink.refused_recipients.clear()
    frozen_time.move_to(state(queued).due_at)
    assert mailing.send_due() == 1
    assert sink.received[0].message["Message-ID"] == f"<{queued.id}@127.0.0.1>"


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour.HANG_AT_GREETING, Behaviour.HANG_AFTER_DATA, Behaviour.DROP_AFTER_DATA],
)
def test_a_server_that_hangs_or_drops_is_left_alone(
    db: None, sink: SMTPSink, settings: Any, behaviour: Behaviour
) -> None:
    settings.EMAIL_TIMEOUT = 0.3
    sink.behaviour = behaviour
    first, second = queue("a@example.org", "b@example.org")
    assert mailing.send_due() == 0
    assert sink.connections == 1
    assert (state(first).error, state(first).sent_at) == ("SMTPServerDisconnected", None)
    assert state(second).attempts == 0


def test_a_mail_whose_receipt_was_lost_comes_again_under_its_own_id(
    alice: User, sink: SMTPSink, frozen_time: time_machine.Traveller
) -> None:
    """So that the mailbox can tell that it is one mail."""
    ask_reset()
    sink.behaviour = Behaviour.DROP_AFTER_DATA
    assert mailing.send_due() == 0
    sink.behaviour = Behaviour.ACCEPT
    frozen_time.move_to(Mail.objects.get().due_at)
    assert mailing.send_due() == 1
    first, second = (each.message for each in sink.received)
    assert first["Message-ID"] == second["Message-ID"]
    texts = [message.get_body(("plain",)) for message in (first, second)]
    assert None not in texts
    assert len({text.get_content() for text in texts if text is not None}) == 1


def test_a_password_that_the_server_refuses_is_no_fault_of_the_mails(
    db: None, sink: SMTPSink, settings: Any
) -> None:
    """Fifty refused logins in a row get the operator's account locked."""
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "postmaster", "Wr0ng"
    sink.behaviour = Behaviour.REFUSE_LOGIN
    first, second = queue("a@example.org", "b@example.org")
    assert mailing.send_due() == 0
    assert state(first).error == smtplib.SMTPAuthenticationError.__name__
    assert sink.connections == 1
    assert state(second).attempts == 0


def test_a_server_that_wants_a_login_gets_one(db: None, sink: SMTPSink, settings: Any) -> None:
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "postmaster", "R1ght"
    queue("a@example.org")
    assert mailing.send_due() == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_a_mail_is_given_up_when_it_is_worth_nothing_any_more(
    alice: User, kind: Kind, frozen_time: time_machine.Traveller, logs: LogCapture
) -> None:
    queued = mailing.enqueue(
        kind,
        "alice@example.org",
        user=alice,
        link=Link.objects.all().issue(Purpose.INVITE) if kind is Kind.INVITE else None,
        registration=Registration.objects.create(
            username="zoe", email="z@x.org", email_canonical="z@x.org", password="x"
        ),
    )
    now = timezone.now()
    frozen_time.shift(WORTHWHILE[kind] - SECOND)
    assert state(queued).is_worthwhile(timezone.now())
    frozen_time.shift(SECOND)
    assert deliver() == []
    assert state(queued).given_up_at == now + WORTHWHILE[kind]
    assert state(queued).sent_at is None
    (event,) = logs.events("mail_given_up")
    assert (event["mail"], event["kind"]) == (str(queued.id), kind)
    frozen_time.shift(timedelta(days=1))
    assert deliver() == []


def test_a_reset_is_tried_for_an_hour(
    alice: User, dead_server: None, settings: Any, frozen_time: time_machine.Traveller
) -> None:
    ask_reset()
    start = timezone.now()
    while not Mail.objects.get().given_up_at:
        assert mailing.send_due() == 0
        frozen_time.move_to(max(Mail.objects.get().due_at, timezone.now() + SECOND))
        assert timezone.now() < start + timedelta(hours=3), "it is never given up"
    assert Mail.objects.get().attempts == 9
    settings.EMAIL_BACKEND = LOCMEM
    assert deliver() == []


POISON = [
    "x@" + "\u00e4" * 60 + ".org",  # as IDNA writes it, a label of over 63 characters
    "x@\u0131" + "a" * 62 + ".org",
    '"a\x1cBcc:mallory"@example.org',  # a line break, to Python's mail package
]


@pytest.mark.parametrize("address", POISON)
def test_an_address_that_cannot_be_written_to_holds_up_nobody_else(
    db: None, sink: SMTPSink, logs: LogCapture, address: str
) -> None:
    poison, good = queue(address, "good@example.org")
    assert mailing.send_due() == 1
    (delivery,) = sink.received
    assert delivery.recipients == ("good@example.org",)
    assert state(good).sent_at is not None
    assert state(poison).sent_at is None
    assert state(poison).error or state(poison).given_up_at, "what was wrong is noted"
    assert "Bcc" not in logs.text


@pytest.mark.parametrize("address", [*POISON, '"a\x0bb"@example.org', '"a\x1eb"@example.org'])
def test_such_an_address_is_none(settings: Any, db: None, address: str) -> None:
    settings.REGISTRATION_MODE = "verified"
    body = {"username": "zoe", "email": address, "password": PASSWORD}
    response = client.post(REGISTER, body)
    assert response.status_code == 422
    assert list(response.json()["errors"]) == ["email"]
    assert ask_reset(address).status_code == 422


# --- The bound -------------------------------------------------------------------------------


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, alice: User) -> None:
    """A queue that takes no more."""
    monkeypatch.setattr(mailing, "MAX_PENDING", 2)
    queue("a@example.org", "b@example.org")


def check_full(response: Any) -> None:
    body = check_problem(response, 503, "mail_queue_full", "Service Unavailable")
    assert body == {"detail": "Too many mails wait to be sent. Try again later."}
    assert response["Retry-After"] == "60"


def test_a_full_queue_refuses_requests(full: None, settings: Any) -> None:
    check_full(ask_reset(HTTP_X_REQUEST_ID=REQUEST_ID))
    check_full(ask_reset("nobody@example.org", HTTP_X_REQUEST_ID=REQUEST_ID))
    settings.REGISTRATION_MODE = "verified"
    body = {"username": "zoe", "email": "zoe@example.org", "password": PASSWORD}
    check_full(client.post(REGISTER, body, HTTP_X_REQUEST_ID=REQUEST_ID))
    assert not Registration.objects.exists()
    assert Mail.objects.count() == 2


def test_a_full_queue_keeps_the_wish_that_was_there(
    settings: Any, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.REGISTRATION_MODE = "verified"
    body = {"username": "zoe", "email": "zoe@example.org", "password": PASSWORD}
    assert client.post(REGISTER, body).status_code == 202
    monkeypatch.setattr(mailing, "MAX_PENDING", 0)
    assert client.post(REGISTER, {**body, "username": "zed"}).status_code == 503
    assert Registration.objects.get().username == "zoe"


def test_a_full_queue_refuses_pages_as_pages(full: None, settings: Any) -> None:
    settings.REGISTRATION_MODE = "verified"
    browser = Client(headers={"Accept": "text/html"})
    form = {"username": "zoe", "email": "alice@example.org", "password": PASSWORD}
    for path in (ASK_PAGE, REGISTER_PAGE):
        response = browser.post(path, form)
        assert response.status_code == 503
        assert response["Content-Type"].startswith("text/html")
        assert response["Retry-After"] == "60"
        assert b"Too many mails wait to be sent." in response.content


def test_a_full_queue_refuses_members(full: None, as_alice: APIClient) -> None:
    body = {"email": "new@example.org", "current_password": PASSWORD}
    check_full(as_alice.patch(PROFILE, body, HTTP_X_REQUEST_ID=REQUEST_ID))
    assert not Link.objects.exists()


def test_strangers_who_fill_the_queue_stop_neither_owners_nor_staff(
    alice: User, as_staff: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = mailed_reset()
    monkeypatch.setattr(mailing, "MAX_PENDING", 0)
    assert confirm_reset(token).status_code == 200
    assert login_status("alice", NEW_PASSWORD) == 200
    assert as_staff.post(INVITATIONS, {"email": "zoe@example.org"}).status_code == 201
    kinds = Mail.objects.all().pending().values_list("kind", flat=True)
    assert set(kinds) == {Kind.PASSWORD_CHANGED, Kind.INVITE}


def test_a_queue_that_was_worked_off_takes_more(full: None) -> None:
    assert ask_reset().status_code == 503
    deliver()
    assert ask_reset().status_code == 202


# --- Files instead of a server ---------------------------------------------------------------


@pytest.fixture
def outbox(settings: Any, tmp_path: Path) -> Path:
    directory = tmp_path / "outbox"
    settings.EMAIL_BACKEND, settings.OUTBOX = FILES, directory
    return directory


def test_without_a_server_a_mail_is_a_file_to_read(alice: User, outbox: Path) -> None:
    ask_reset()
    assert mailing.send_due() == 1
    (file,) = outbox.iterdir()
    text = file.read_text()
    assert "To: alice@example.org" in text
    assert "Subject: Reset your password" in text
    urls = set(re.findall(rf"{re.escape(BASE)}{CONFIRM_PAGE}\?token=[0-9a-f]{{64}}\b", text))
    (url,) = urls
    assert f"\n{url}\n" in text, "whole and on a line of its own"
    assert client.get(path_of(url)).status_code == 200
    # A link is as good as a password.
    assert [path.stat().st_mode & 0o077 for path in (outbox, file)] == [0, 0]


def test_each_mail_is_a_file_of_its_own(alice: User, bob: User, outbox: Path) -> None:
    for address in ("alice@example.org", "bob@example.org"):
        ask_reset(address)
    assert mailing.send_due() == 2
    assert len(list(outbox.glob("*.eml"))) == 2


def test_an_outbox_that_cannot_be_written_loses_nothing(
    alice: User, outbox: Path, frozen_time: time_machine.Traveller
) -> None:
    ask_reset()
    outbox.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "accounts.outbox.os.fdopen",
            Mock(side_effect=OSError(28, "No space left on device")),
        )
        assert mailing.send_due() == 0
    assert Mail.objects.get().error == "OSError"
    assert list(outbox.iterdir()) == [], "not half of it either"
    frozen_time.move_to(Mail.objects.get().due_at)
    assert mailing.send_due() == 1


# --- Settings --------------------------------------------------------------------------------


def test_files_are_the_default(settings_file: Loader, tmp_path: Path) -> None:
    loaded = settings_file.load(EMAIL_URL=None)
    assert loaded["EMAIL_BACKEND"] == FILES
    assert loaded["OUTBOX"] == tmp_path / "outbox"
    assert loaded["DEFAULT_FROM_EMAIL"] == "SovereignCore <no-reply@localhost>"


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "ssl"),
    [
        ("smtp://mail.example.org", "mail.example.org", 25, False, False),
        ("smtp://mail.example.org:2525", "mail.example.org", 2525, False, False),
        ("smtp+tls://mail.example.org", "mail.example.org", 587, True, False),
        ("smtp+tls://mail.example.org:25", "mail.example.org", 25, True, False),
        ("smtp+ssl://mail.example.org", "mail.example.org", 465, False, True),
        ("smtp+ssl://mail.example.org:4465", "mail.example.org", 4465, False, True),
        ("smtp://[2001:db8::1]:2525", "2001:db8::1", 2525, False, False),
        ("smtp://127.0.0.1:1025", "127.0.0.1", 1025, False, False),
    ],
)
def test_a_url_names_the_server(
    settings_file: Loader, url: str, host: str, port: int, tls: bool, ssl: bool
) -> None:
    loaded = settings_file.load(EMAIL_URL=url)
    assert loaded["EMAIL_BACKEND"] == SMTP
    assert (loaded["EMAIL_HOST"], loaded["EMAIL_PORT"]) == (host, port)
    assert (loaded["EMAIL_USE_TLS"], loaded["EMAIL_USE_SSL"]) == (tls, ssl)
    assert loaded["EMAIL_HOST_USER"] == loaded["EMAIL_HOST_PASSWORD"] == ""
    assert 0 < loaded["EMAIL_TIMEOUT"] <= 10


def test_a_url_may_hold_a_login(settings_file: Loader) -> None:
    loaded = settings_file.load(EMAIL_URL="smtp+tls://post%40x.org:p%3A%2F%40%2B%25s@mail.x.org")
    assert loaded["EMAIL_HOST_USER"] == "post@x.org"
    assert loaded["EMAIL_HOST_PASSWORD"] == "p:/@+%s"
    assert loaded["EMAIL_HOST"] == "mail.x.org"


@pytest.mark.parametrize(
    "url",
    [
        *("mail.example.org", "mail.example.org:25", "http://mail.example.org", "SMTP://x"),
        *("smtps://mail.example.org", "smtp+starttls://mail.example.org", "smtp:mail", "smtp://"),
        *("smtp://mail.example.org:port", "smtp://mail.example.org:99999", "smtp://["),
        *("smtp://a b", "filemail://", "consolemail://"),
        # Half of these would be dropped in silence.
        *("smtp://:587", "smtp://user:pw@", "smtp://user:pw@:587", "smtp://?tls=true"),
        *("smtp://mail.example.org?tls=true", "smtp://mail.example.org/path"),
        "smtp://mail.example.org#x",
    ],
)
def test_nonsense_is_refused(settings_file: Loader, url: str) -> None:
    problem = settings_file.problem(EMAIL_URL=url)
    assert problem.startswith("\n  - EMAIL_URL: expected smtp://")
    assert problem.count("\n  - ") == 1


def test_a_refused_url_is_not_repeated(settings_file: Loader) -> None:
    assert "Tr0ub4dor" not in settings_file.problem(EMAIL_URL="smtps://u:Tr0ub4dor@mail.x.org")


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:8528", "https://ai.example.org", "http://[2001:db8::1]:8528"]
)
def test_the_default_sender_can_send(settings_file: Loader, base: str) -> None:
    sender = settings_file.load(PUBLIC_BASE_URL=base)["DEFAULT_FROM_EMAIL"]
    assert sanitize_address(sender, "utf-8").startswith("SovereignCore <no-reply@")


@pytest.mark.parametrize("sender", ["a, b", "a@x.org, b@x.org"])
def test_a_sender_that_cannot_send_is_refused(settings_file: Loader, sender: str) -> None:
    problem = settings_file.problem(DEFAULT_FROM_EMAIL=sender)
    assert problem.startswith("\n  - DEFAULT_FROM_EMAIL: ")


def test_a_sender_may_have_a_name(settings_file: Loader) -> None:
    sender = "Our own AI <ai@example.org>"
    assert settings_file.load(DEFAULT_FROM_EMAIL=sender)["DEFAULT_FROM_EMAIL"] == sender


# --- Housekeeping ----------------------------------------------------------------------------


def add_mail(**moments: datetime) -> Mail:
    return Mail.objects.create(kind=Kind.PASSWORD_CHANGED, address="a@example.org", **moments)


def test_old_mails_are_forgotten(db: None, frozen_time: object) -> None:
    now = timezone.now()
    week, longer = now - timedelta(days=7), now - timedelta(days=7, seconds=1)
    kept = {
        add_mail(created_at=longer).pk,
        add_mail(sent_at=week).pk,
        add_mail(given_up_at=week).pk,
    }
    add_mail(sent_at=longer)
    add_mail(given_up_at=longer)
    assert flush_mails() == 2
    assert set(Mail.objects.values_list("pk", flat=True)) == kept
    assert flush_mails() == 0


def test_old_links_are_forgotten(alice: User, frozen_time: time_machine.Traveller) -> None:
    link = Link.objects.all().issue(Purpose.RESET_PASSWORD, user=alice)
    frozen_time.move_to(link.expires_at + timedelta(days=7))
    young = Link.objects.all().issue(Purpose.RESET_PASSWORD, user=alice)
    assert flush_mails() == 0
    frozen_time.shift(SECOND)
    assert flush_mails() == 1
    assert Link.objects.get() == young
    Link.objects.redeem(young)
    frozen_time.shift(timedelta(days=7))
    assert flush_mails() == 0
    frozen_time.shift(SECOND)
    assert flush_mails() == 1, "used ones from their use on"


def test_old_wishes_are_forgotten_with_their_mails_and_links(
    settings: Any, db: None, frozen_time: time_machine.Traveller
) -> None:
    settings.REGISTRATION_MODE = "verified"
    body = {"username": "zoe", "email": "zoe@example.org", "password": PASSWORD}
    assert client.post(REGISTER, body).status_code == 202
    token = token_in(deliver_one())
    frozen_time.shift(timedelta(days=2))
    assert flush_mails() == 0
    frozen_time.shift(SECOND)
    assert flush_mails() == 3
    for model in (Registration, Mail, Link):
        assert not model.objects.exists()
    assert "zoe" not in dump()
    assert token


def test_old_files_are_removed_and_foreign_ones_left(db: None, outbox: Path) -> None:
    outbox.mkdir()
    week_s = 7 * 24 * 3600
    now_s = datetime.now(tz=timezone.get_default_timezone()).timestamp()
    ages_s = {"old.eml": week_s + 60, "young.eml": week_s - 60, "old.txt": 2 * week_s}
    for name, age_s in ages_s.items():
        (outbox / name).touch()
        os.utime(outbox / name, (now_s - age_s, now_s - age_s))
    assert flush_mails() == 1
    assert {path.name for path in outbox.iterdir()} == {"young.eml", "old.txt"}


def test_housekeeping_needs_no_outbox(db: None, outbox: Path) -> None:
    assert flush_mails() == 0
    assert not outbox.exists()


def test_the_worker_knows_that_job_too() -> None:
    (job,) = (job for job in jobs.all_jobs() if job.name == "flush_mails")
    assert job.run is flush_mails
    assert job.interval == timedelta(hours=1)


# --- What is told ----------------------------------------------------------------------------


def test_no_log_line_holds_an_address_or_a_password(
    alice: User, sink: SMTPSink, settings: Any, logs: LogCapture, frozen_time: object
) -> None:
    settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "postmaster", "Tr0ub4dor"
    queue("a@example.net")
    ask_reset()
    client.post(ASK, {"email": "alice@example.org", "password": PASSWORD})
    client.post(ASK, {"email": "not an address@example.org"})
    assert mailing.send_due() == 2
    sink.refused_recipients.add("b@example.net")
    queue("b@example.net")
    assert mailing.send_due() == 0
    sink.behaviour = Behaviour.REFUSE_LOGIN
    queue("c@example.net")
    assert mailing.send_due() == 0
    assert len(logs.events("mail_sent")) == 2
    assert len(logs.events("mail_failed")) == 2
    for secret in ("example.org", "example.net", PASSWORD, "Tr0ub4dor", "postmaster", "token="):
        assert secret not in logs.text


def test_the_database_holds_no_link_whatever_became_of_the_mail(
    alice: User, sink: SMTPSink, settings: Any
) -> None:
    sink.behaviour = Behaviour.DROP_AFTER_DATA
    ask_reset()
    assert mailing.send_due() == 0
    text = sink.received[0].message.get_body(("plain",))
    assert text is not None
    (token,) = re.findall(r"token=([0-9a-f]{64})", text.get_content())
    kept = dump()
    assert Mail.objects.get().id.hex in kept.replace("-", "")
    assert token not in kept
    assert token[:16] not in kept
