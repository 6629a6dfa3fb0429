"""Canonical names and addresses: what makes two spellings one identity. Pure functions."""

from __future__ import annotations

import re
import unicodedata

USERNAME_PATTERN = r"[A-Za-z0-9_-]{3,50}"
# Words that stand in routes under /users/, or that people take for the operator.
RESERVED_USERNAMES = frozenset(
    {
        *("me", "register", "password-reset", "verify-email", "email-change", "invitations"),
        *("invite", "root", "system", "anonymous"),
    }
)


def canonical(text: str) -> str:
    """NFKC, then casefold, then NFKC again: casefolding can leave a composable sequence."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def is_username(text: str) -> bool:
    return re.fullmatch(USERNAME_PATTERN, text) is not None


def is_reserved(username: str) -> bool:
    return canonical(username) in RESERVED_USERNAMES
