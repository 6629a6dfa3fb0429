"""A password hasher for tests."""

from __future__ import annotations

from django.contrib.auth.hashers import BCryptSHA256PasswordHasher


class CheapBCryptSHA256PasswordHasher(BCryptSHA256PasswordHasher):
    rounds = 4
