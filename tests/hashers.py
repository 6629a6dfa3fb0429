"""A password hasher for tests."""

from __future__ import annotations

from accounts.hashing import CappedBCryptSHA256PasswordHasher


class CheapBCryptSHA256PasswordHasher(CappedBCryptSHA256PasswordHasher):
    rounds = 4
