"""Rules for passwords, names and addresses that Django does not have."""

from __future__ import annotations

import unicodedata
from email.errors import MessageError

from django.core.exceptions import ValidationError
from django.core.mail.message import sanitize_address
from django.core.validators import validate_email

from accounts.identity import canonical, is_reserved, is_username

MAX_ADDRESS_LENGTH = 254  # RFC 5321
# Control and format characters, ends of lines and paragraphs: not seen themselves, they change
# what is seen around them. Two of them are part of how people write: in Persian, and in emoji.
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"

_CLASSES = (
    (str.isupper, "an upper-case letter"),
    (str.islower, "a lower-case letter"),
    (str.isdigit, "a digit"),
)


class CharacterClassesValidator:
    """An upper-case letter, a lower-case letter and a digit at least."""

    def validate(self, password: str, user: object = None) -> None:
        missing = [name for has, name in _CLASSES if not any(map(has, password))]
        if missing:
            raise ValidationError(
                f"The password needs {', '.join(missing)}.", code="password_too_plain"
            )

    def get_help_text(self) -> str:
        return "Your password needs an upper-case letter, a lower-case letter and a digit."


class MaximumLengthValidator:
    """A bound, so that hashing a password is bounded work."""

    max_length = 128

    def validate(self, password: str, user: object = None) -> None:
        if len(password) > self.max_length:
            raise ValidationError(
                f"The password is longer than {self.max_length} characters.",
                code="password_too_long",
            )

    def get_help_text(self) -> str:
        return f"Your password may have {self.max_length} characters at most."


def validate_name(name: str) -> None:
    """Raise ValidationError unless an account may be called so."""
    if not is_username(name):
        raise ValidationError("3 to 50 letters, digits, underscores or hyphens.")
    if is_reserved(name):
        raise ValidationError("This name is reserved.")


def validate_line(text: str) -> None:
    """Raise ValidationError unless `text` is one line that looks like what it is: others read it
    in lists, between names that it must not turn round or hide."""
    for char in text:
        if unicodedata.category(char) in _UNSEEN and char not in _JOINERS:
            raise ValidationError(
                f"The character U+{ord(char):04X} is not allowed: it changes how text is shown."
            )


def validate_address(address: str) -> None:
    """Raise ValidationError unless `address` is one, in its canonical spelling too.

    That one may be far longer (NFKC makes 18 characters of some single ones) and no address.
    """
    for spelling in (address, canonical(address)):
        if len(spelling) > MAX_ADDRESS_LENGTH:
            raise ValidationError("Not an e-mail address.")
        try:
            validate_email(spelling)
            # What mails are addressed by refuses more: overlong labels, what no header can hold.
            sanitize_address(spelling, "utf-8")
        except (ValidationError, ValueError, MessageError) as error:
            raise ValidationError("Not an e-mail address.") from error
        if not spelling.isprintable():  # in quotes, mail's grammar allows control characters
            raise ValidationError("Not an e-mail address.")
    local, _, domain = canonical(address).rpartition("@")
    # Django's pattern takes a dotless i for an i, and the two would stand side by side.
    if not local.isascii() or not _is_its_own_name(domain):
        raise ValidationError("Not an e-mail address.")


def _is_its_own_name(domain: str) -> bool:
    """Whether mail servers know `domain` by this name. They leave some characters out and know
    bücher.de as xn--bcher-kva.de too: one mailbox must not be several identities."""
    try:
        return domain.encode("idna").decode("idna") == domain
    except UnicodeError:
        return False
