"""The pages as people meet them: in a browser, with its own idea of our security headers."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django_otp.oath import TOTP

from tests.browser.conftest import TIMEOUT_S
from tests.migrated import ROOT
from tests.platform import PASSWORD, Platform, running_platform
from tests.stub_engine import StubEngine

pytestmark = pytest.mark.browser

NEW_PASSWORD = "Another-Horse-8-Battery"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with (
        StubEngine() as stub,
        running_platform(stub, REGISTRATION_MODE="verified", RATE_LIMIT_RESET="100/h") as running,
    ):
        worker = subprocess.Popen(
            [sys.executable, "manage.py", "worker"],
            cwd=ROOT,
            env=running.environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield running
        finally:
            worker.terminate()
            worker.wait(TIMEOUT_S)


def newest_link(platform: Platform, address: str, *, after: int) -> str:
    """The link in the newest mail to `address`, once more than `after` have been written."""
    outbox = Path(platform.environment["DATA_DIR"]) / "outbox"
    until_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until_s:
        mails = [path.read_text() for path in sorted(outbox.glob("*.eml"))]
        to_them = [mail for mail in mails if f"To: {address}" in mail]
        if len(to_them) > after:
            (link, *_) = re.findall(r"^http\S+token=\S+$", to_them[-1], re.MULTILINE)
            return str(link)
        time.sleep(0.1)
    raise AssertionError(f"no mail to {address}")


def register(platform: Platform, page: Any, name: str) -> str:
    """An account made through the pages; its address."""
    address = f"{name}@example.org"
    page.goto("/register")
    page.get_by_label("User name").fill(name)
    page.get_by_label("E-mail address").fill(address)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    page.get_by_role("heading", name="Look into your mail").wait_for()
    page.goto(newest_link(platform, address, after=0))
    page.get_by_label("The password that you chose").fill(PASSWORD)
    page.get_by_role("button", name="Create my account").click()
    page.get_by_role("heading", name="Your account is ready").wait_for()
    return address


def login_status(platform: Platform, name: str, password: str) -> int:
    with platform.client() as http:
        form = {"username": name, "password": password}
        return http.post("/api/v1/auth/token", data=form).status_code


def test_somebody_registers(platform: Platform, page: Any) -> None:
    register(platform, page, "reginald")
    assert login_status(platform, "reginald", PASSWORD) == httpx2.codes.OK


def test_somebody_who_forgot_their_password_gets_in_again(platform: Platform, page: Any) -> None:
    address = register(platform, page, "forgetful")
    page.goto("/password-reset")
    page.get_by_label("E-mail address").fill(address)
    page.get_by_role("button", name="Send me a link").click()
    page.get_by_role("heading", name="Look into your mail").wait_for()
    link = newest_link(platform, address, after=1)
    page.goto(link)
    page.get_by_label("New password").fill("short")
    page.get_by_label("The same again").fill("short")
    page.get_by_role("button", name="Change password").click()
    page.get_by_role("alert").first.wait_for()
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.get_by_label("The same again").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Change password").click()
    page.get_by_role("heading", name="Your password is changed").wait_for()
    assert login_status(platform, "forgetful", NEW_PASSWORD) == httpx2.codes.OK
    assert login_status(platform, "forgetful", PASSWORD) == httpx2.codes.UNAUTHORIZED
    assert page.goto(link).status == httpx2.codes.BAD_REQUEST
    page.get_by_text("This link is not valid any more").wait_for()


def test_staff_sets_up_a_second_factor(platform: Platform, page: Any) -> None:
    made = platform.manage("bootstrap", "--username", "grace", "--email", "grace@example.org")
    password = made.stdout.rpartition(":")[2].strip()

    def log_in() -> None:
        page.goto("/admin/login/?next=/admin/")
        page.get_by_label("Username").fill("grace")
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()

    log_in()
    page.get_by_role("link", name="Second factor").click()
    image = page.get_by_alt_text("QR code of the secret below")
    assert image.evaluate("image => image.complete && image.naturalWidth > 0")
    secret = page.locator("code").inner_text()
    page.get_by_label("Code").fill(_code(secret, at_s=time.time()))
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("heading", name="Backup codes").wait_for()
    backup = page.locator("li code").first.inner_text()
    page.get_by_role("link", name="I have them").click()
    page.get_by_role("button", name="Log out").click()

    log_in()
    page.get_by_text("Type the code that your authenticator shows").wait_for()
    page.get_by_label("Code").fill(backup)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("heading", name="Administration").wait_for()


def _code(secret: str, *, at_s: float) -> str:
    totp = TOTP(base64.b32decode(secret))
    totp.time = at_s
    return f"{totp.token():06d}"
