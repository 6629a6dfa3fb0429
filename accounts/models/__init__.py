"""Who may use the platform, and what proves it: digests of tokens and keys, never these."""

from accounts.models.api_key import APIKey
from accounts.models.session import Session
from accounts.models.user import User

__all__ = ["APIKey", "Session", "User"]
