"""What one can do with accounts, one module a subject."""

from accounts.services.administration import bootstrap_admin, set_active
from accounts.services.keys import create_key, revoke_key
from accounts.services.registration import IdentityTaken, register
from accounts.services.sessions import (
    InvalidGrant,
    InvalidScope,
    TokenPair,
    end_all_sessions,
    end_session,
    log_in,
    refresh,
    start_session,
)

__all__ = [
    "IdentityTaken",
    "InvalidGrant",
    "InvalidScope",
    "TokenPair",
    "bootstrap_admin",
    "create_key",
    "end_all_sessions",
    "end_session",
    "log_in",
    "refresh",
    "register",
    "revoke_key",
    "set_active",
    "start_session",
]
