"""Password rules that Django does not have."""

from __future__ import annotations

from django.core.exceptions import ValidationError

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
