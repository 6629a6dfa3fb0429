"""The audit trail's words for what happens to accounts."""

ACTIONS = {
    "user.registered": "An account was made by its owner.",
    "user.bootstrapped": "The first administrator was made by the operator.",
    "user.made_by_staff": "An account was made in the admin site.",
    "user.changed_by_staff": "Fields of an account were changed in the admin site.",
    "password.set_by_staff": "A password was set in the admin site; all sessions ended.",
    "user.enabled": "An account was enabled.",
    "user.disabled": "An account was disabled; its sessions ended.",
    "user.signed_out": "All sessions of an account were ended.",
    "user.deactivated": "An account was closed by its owner; its data is kept.",
    "user.exported": "Everything held about a person was exported.",
    "user.erased": "A person was erased.",
    "user.renamed": "An account's full name was changed.",
    "user.address_changed": "An account's e-mail address was changed.",
    "password.changed": "A password was changed by its owner; all sessions ended.",
    "password.reset": "A password was reset by mail; sessions and API keys ended.",
    "password.reset_sent": "An administrator had a reset link mailed.",
    "quota.set": "How many tokens a day an account may use was changed.",
    "invitation.made": "An invitation to register was made.",
    "invitation.revoked": "An invitation was revoked.",
    "keys.rotated": "The operator took a step in rotating the keys that sign tokens.",
    "otp.enrolled": "A second factor was set up; backup codes were made.",
    "otp.codes_renewed": "Backup codes were replaced.",
    "otp.removed": "A second factor was removed.",
    "session.begun": "Somebody logged in.",
    "session.ended": "A session was ended.",
    "session.replayed": "A spent refresh token came back; its session was ended.",
    "key.created": "An API key was made.",
    "key.revoked": "An API key was revoked.",
}

# What a backup from before does not know, and nobody would notice.
TO_DO_AGAIN_AFTER_A_RESTORE = {
    "user.erased": "Erase these accounts again",
    "user.disabled": "Disable these accounts again",
    "key.revoked": "Revoke these API keys again",
    "password.changed": "These accounts have their former password again",
    "password.reset": "These accounts have the password again that was reset",
    "password.set_by_staff": "These accounts have the password again that was replaced",
}
