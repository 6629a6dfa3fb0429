"""Who may use the platform, and what proves it: digests of tokens and keys, never these."""

from accounts.models.api_key import APIKey
from accounts.models.link import Link, Purpose
from accounts.models.mail import Kind, Mail
from accounts.models.registration import Registration
from accounts.models.session import Session
from accounts.models.user import User

__all__ = ["APIKey", "Kind", "Link", "Mail", "Purpose", "Registration", "Session", "User"]
