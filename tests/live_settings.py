"""Settings of the processes that tests look at from outside: the real ones, except for what a hash
costs, as in tests/settings.py: half of what these processes did was to check passwords.

Who measures, or judges what hashing does to others, starts them with the real ones.
"""

from __future__ import annotations

from sovereigncore.settings import *  # noqa: F403

PASSWORD_HASHERS = ["tests.hashers.CheapBCryptSHA256PasswordHasher"]
