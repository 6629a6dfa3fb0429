"""What one can do with accounts, one module a subject."""

from accounts.services.administration import (
    LastSuperuser,
    NeedsSuperuser,
    bootstrap_admin,
    check_authority,
    keep_a_superuser,
    send_reset,
    set_active,
    set_quota,
    sign_out,
)
from accounts.services.keys import create_key, revoke_key
from accounts.services.links import InvalidLink, WrongPassword, find_link
from accounts.services.personal_data import erase_user, export_user
from accounts.services.profile import (
    change_address,
    change_password,
    check_own_password,
    deactivate,
    rename,
    request_address_change,
)
from accounts.services.recovery import request_reset, reset_password
from accounts.services.registration import (
    Applicant,
    IdentityTaken,
    check_open,
    invitation_url,
    invite,
    register,
    revoke_invitation,
    verify_address,
)
from accounts.services.sessions import (
    InvalidGrant,
    InvalidScope,
    TokenPair,
    end_all_sessions,
    end_everybodys_sessions,
    end_session,
    log_in,
    refresh,
)

__all__ = [
    "Applicant",
    "IdentityTaken",
    "InvalidGrant",
    "InvalidLink",
    "InvalidScope",
    "LastSuperuser",
    "NeedsSuperuser",
    "TokenPair",
    "WrongPassword",
    "bootstrap_admin",
    "change_address",
    "change_password",
    "check_authority",
    "check_open",
    "check_own_password",
    "create_key",
    "deactivate",
    "end_all_sessions",
    "end_everybodys_sessions",
    "end_session",
    "erase_user",
    "export_user",
    "find_link",
    "invitation_url",
    "invite",
    "keep_a_superuser",
    "log_in",
    "refresh",
    "register",
    "rename",
    "request_address_change",
    "request_reset",
    "reset_password",
    "revoke_invitation",
    "revoke_key",
    "send_reset",
    "set_active",
    "set_quota",
    "sign_out",
    "verify_address",
]
