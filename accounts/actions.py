"""The audit trail's words for what happens to accounts."""

ACTIONS = {
    "user.registered": "An account was made by its owner.",
    "user.bootstrapped": "The first administrator was made by the operator.",
    "user.enabled": "An account was enabled.",
    "user.disabled": "An account was disabled; its sessions ended.",
    "user.signed_out": "All sessions of an account were ended.",
    "user.renamed": "An account's full name was changed.",
    "user.address_changed": "An account's e-mail address was changed.",
    "password.changed": "A password was changed by its owner; all sessions ended.",
    "password.reset": "A password was reset by mail; sessions and API keys ended.",
    "password.reset_sent": "An administrator had a reset link mailed.",
    "invitation.made": "An invitation to register was made.",
    "invitation.revoked": "An invitation was revoked.",
    "otp.enrolled": "A second factor was set up; backup codes were made.",
    "otp.codes_renewed": "Backup codes were replaced.",
    "otp.removed": "A second factor was removed.",
    "session.begun": "Somebody logged in.",
    "session.ended": "A session was ended.",
    "session.replayed": "A spent refresh token came back; its session was ended.",
    "key.created": "An API key was made.",
    "key.revoked": "An API key was revoked.",
}
