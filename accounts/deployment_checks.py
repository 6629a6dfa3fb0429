"""What `manage.py verify_deployment` asks about mail and administrators."""

from __future__ import annotations

import contextlib
import smtplib

from django.conf import settings
from django.core.mail import get_connection
from django_otp.plugins.otp_totp.models import TOTPDevice

from accounts.models import User
from monitoring.deployment import Finding, failed, not_checked, ok, warning

_TIMEOUT_S = 5.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def ask_mail() -> Finding:
    """Connects and logs in as the worker does, and sends nothing."""
    if not settings.EMAIL_URL:
        return not_checked("EMAIL_URL is not set: mails are files in DATA_DIR/outbox")
    server = f"{settings.EMAIL_HOST}:{settings.EMAIL_PORT}"
    connection = get_connection(fail_silently=False, timeout=_TIMEOUT_S)
    try:
        connection.open()
    except smtplib.SMTPAuthenticationError as error:
        # Its code alone: servers have been seen to repeat the password.
        return failed(f"{server} refuses the login ({error.smtp_code})")
    except OSError as error:  # SMTPException is one
        return failed(f"{server} takes no connection: {type(error).__name__}")
    finally:
        with contextlib.suppress(OSError):  # a server that is away is not said good-bye to
            connection.close()
    is_hidden = settings.EMAIL_USE_TLS or settings.EMAIL_USE_SSL
    if not is_hidden and settings.EMAIL_HOST not in _LOOPBACK:
        return warning(f"{server} answers, in the clear: use smtp+tls:// or smtp+ssl://")
    logged_in = " and the login" if settings.EMAIL_HOST_USER else ""
    return ok(f"{server} takes the connection{logged_in}")


def ask_administrators() -> Finding:
    """That there is one, and who of the staff has no second factor; by number, not by name."""
    staff = User.objects.filter(is_active=True, is_staff=True)
    if not staff.filter(is_superuser=True).exists():
        return failed("there is none: run `bootstrap`")
    enrolled = TOTPDevice.objects.filter(confirmed=True).values("user_id")
    count, without = staff.count(), staff.exclude(id__in=enrolled).count()
    if not without:
        return ok(f"{count} in the staff, all with a second factor")
    said = f"{without} of {count} in the staff have no second factor"
    if settings.ADMIN_REQUIRE_OTP:
        return failed(f"{said}, which ADMIN_REQUIRE_OTP asks for")
    return warning(said)
