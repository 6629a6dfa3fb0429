"""One-time codes for staff: enrolled once, asked for by the admin site and the `admin` scope.

django-otp keeps the devices, refuses a code used twice and slows down who guesses. Backup codes
are kept as keyed digests, so that reading the database is not enough to use one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import uuid

from django.conf import settings
from django.db import transaction
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from accounts.models import User
from monitoring import audit
from sovereigncore.api import ServiceError

BACKUP_CODES = 10
_TOTP_CODE = re.compile(r"[0-9]{6}")
_CODE_BYTES = 5  # 40 bits each, with django-otp's growing delay after every wrong one
_STORED_LENGTH = 16  # of django-otp's column


class WrongCode(ServiceError):
    status = 403
    code = "wrong_code"
    default_detail = "The code is not right. Each holds once and for half a minute."


def is_enrolled(user: User) -> bool:
    return bool(TOTPDevice.objects.filter(user=user, confirmed=True).exists())


def is_needed(user: User) -> bool:
    """Whether this account administers with a code only."""
    return bool(settings.ADMIN_REQUIRE_OTP) or is_enrolled(user)


def check_code(user: User, code: str) -> TOTPDevice | StaticDevice | None:
    """The device that made `code`, which is spent now; None for a wrong or a spent one."""
    code = re.sub(r"[\s-]", "", code)
    model, candidate = (
        (TOTPDevice, code) if _TOTP_CODE.fullmatch(code) else (StaticDevice, _stored(code))
    )
    with transaction.atomic():
        for device in model.objects.select_for_update().filter(user=user, confirmed=True):
            if device.verify_token(candidate):
                return device
    return None


def begin_enrolment(user: User) -> TOTPDevice:
    """The device to confirm: the same one until it is, so that a reloaded page shows the same
    secret."""
    device, _ = TOTPDevice.objects.get_or_create(
        user=user, confirmed=False, defaults={"name": "authenticator"}
    )
    return device


def confirm_enrolment(user: User, code: str) -> tuple[TOTPDevice, list[str]]:
    """From now on codes are needed. Returns the device and the backup codes, shown this once.

    Raises WrongCode.
    """
    with transaction.atomic():
        device = TOTPDevice.objects.select_for_update().filter(user=user, confirmed=False).first()
        if device is None or not device.verify_token(re.sub(r"\s", "", code)):
            is_right = False
        else:
            device.confirmed = True
            device.save(update_fields=["confirmed"])
            codes = _replace_backup_codes(user)
            audit.record("otp.enrolled", actor_id=user.id, subject_id=user.id)
            is_right = True
    if not is_right:  # outside, so that django-otp's count of failures stays
        raise WrongCode
    return device, codes


def renew_backup_codes(user: User) -> list[str]:
    """New codes; the old ones end."""
    with transaction.atomic():
        codes = _replace_backup_codes(user)
        audit.record("otp.codes_renewed", actor_id=user.id, subject_id=user.id)
    return codes


def remove(user: User, *, actor_id: uuid.UUID | None) -> None:
    """Forget the account's devices and codes: for who lost them."""
    with transaction.atomic():
        TOTPDevice.objects.filter(user=user).delete()
        StaticDevice.objects.filter(user=user).delete()
        audit.record("otp.removed", actor_id=actor_id, subject_id=user.id)


def secret_of(device: TOTPDevice) -> str:
    """The secret as authenticator apps take it by hand."""
    return base64.b32encode(binascii.unhexlify(device.key)).decode()


def _replace_backup_codes(user: User) -> list[str]:
    StaticDevice.objects.filter(user=user).delete()
    device = StaticDevice.objects.create(user=user, name="backup codes", confirmed=True)
    codes = [secrets.token_hex(_CODE_BYTES) for _ in range(BACKUP_CODES)]
    StaticToken.objects.bulk_create(
        [StaticToken(device=device, token=_stored(code)) for code in codes]
    )
    return codes


def _stored(code: str) -> str:
    key = settings.SECRET_KEY.encode()
    digest = hmac.digest(key, b"accounts.backup_code:" + code.lower().encode(), hashlib.sha256)
    return base64.b32encode(digest).decode()[:_STORED_LENGTH]
