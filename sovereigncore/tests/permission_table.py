"""The one permission table: what every route answers to every kind of caller, by method.

A public route ignores credentials, so its answer is the same for all; where a body is needed an
empty one is sent, and 400 or 422 means that the caller was let in. Admin pages know browser
sessions and no tokens; everything else knows tokens and no sessions.
"""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW")

# In this order: without a credential, a user, the same with scope `read` only, staff, and a user
# who was disabled after the token was issued.
CALLERS = ("anonymous", "user", "reader", "staff", "disabled")
Statuses = tuple[int, int, int, int, int]


def same(status: int) -> Statuses:
    return (status,) * 5


PUBLIC = same(200)
NO_METHOD = same(405)
READ = (401, 200, 200, 200, 401)
NEEDS_WRITE = (401, 422, 403, 422, 401)  # let in, and the empty body refused
DONE = (401, 204, 403, 204, 401)
NO_METHOD_FOR_USERS = (401, 405, 403, 405, 401)  # unsafe methods ask for `write` first

FOR_STAFF = (401, 403, 403, 200, 401)
NOT_READABLE = dict.fromkeys(("GET", "HEAD"), (401, 405, 405, 405, 401))


@dataclass(frozen=True, kw_only=True)
class Route:
    path: str
    methods: dict[str, Statuses]
    otherwise: Statuses = NO_METHOD

    def expected(self, method: str) -> Statuses:
        return self.methods.get(method, self.otherwise)


def page() -> dict[str, Statuses]:
    return {"GET": PUBLIC, "HEAD": PUBLIC}


def readable() -> dict[str, Statuses]:
    return {"GET": READ, "HEAD": READ, "OPTIONS": READ}


def public_post(path: str) -> Route:
    return Route(path=f"/api/v1/{path}", methods={"POST": same(422), "OPTIONS": PUBLIC})


def openai_post(path: str) -> Route:
    """Here an empty body is a 400."""
    return Route(
        path=f"/v1/{path}",
        methods={"POST": (401, 400, 403, 400, 401), "OPTIONS": READ, **NOT_READABLE},
        otherwise=NO_METHOD_FOR_USERS,
    )


def staff_action(path: str, done: int) -> Route:
    return Route(
        path=f"/api/v1/users/{{name}}/{path}",
        methods={"POST": (401, 403, 403, done, 401), "OPTIONS": READ},
        otherwise=(401, 403, 403, 405, 401),
    )


def somebody_elses(path: str, *changes: str) -> Route:
    """An object of another user: nobody here may see that it exists."""
    return Route(
        path=f"/api/v1/{path}",
        methods={
            **dict.fromkeys(("GET", "HEAD"), (401, 404, 404, 404, 401)),
            **dict.fromkeys(changes, (401, 404, 403, 404, 401)),
            "OPTIONS": READ,
        },
        otherwise=NO_METHOD_FOR_USERS,
    )


def link_page(path: str) -> Route:
    """Without a token, 400 says that the link is not valid."""
    return Route(path=path, methods=dict.fromkeys(("GET", "HEAD", "POST"), same(400)))


ROUTES: dict[str, Route] = {
    "home": Route(path="/", methods=page()),
    "to-admin": Route(path="/admin", methods={"GET": same(302), "HEAD": same(302)}),
    "live": Route(path="/live", methods=page()),
    "ready": Route(path="/ready", methods=page()),
    "health": Route(path="/health", methods=page()),
    "metrics": Route(path="/metrics", methods=page()),  # from this host, while no token is set
    "jwks": Route(path="/.well-known/jwks.json", methods={**page(), "OPTIONS": PUBLIC}),
    "docs": Route(path="/api/docs", methods={**page(), "OPTIONS": PUBLIC}),
    "schema": Route(path="/api/schema", methods={**page(), "OPTIONS": PUBLIC}),  # API_DOCS is on
    "token": Route(path="/api/v1/auth/token", methods={"POST": same(400), "OPTIONS": PUBLIC}),
    "token-refresh": Route(
        path="/api/v1/auth/token/refresh", methods={"POST": same(400), "OPTIONS": PUBLIC}
    ),
    "register": Route(
        path="/api/v1/users/register", methods={"POST": same(422), "OPTIONS": PUBLIC}
    ),
    "verify-email": public_post("users/verify-email"),
    "password-reset-request": public_post("users/password-reset/request"),
    "password-reset-confirm": public_post("users/password-reset/confirm"),
    "email-change": public_post("users/email-change/confirm"),
    "register-page": Route(path="/register", methods={**page(), "POST": same(422)}),
    "reset-page": Route(path="/password-reset", methods={**page(), "POST": same(422)}),
    "reset-confirm-page": link_page("/password-reset/confirm"),
    "verify-email-page": link_page("/verify-email"),
    "email-change-page": link_page("/email-change/confirm"),
    "invitations": Route(
        path="/api/v1/users/invitations",
        methods={
            **dict.fromkeys(("GET", "HEAD", "OPTIONS"), FOR_STAFF),
            "POST": (401, 403, 403, 201, 401),
        },
        otherwise=(401, 403, 403, 405, 401),
    ),
    "invitation": Route(
        path="/api/v1/users/invitations/{link}",
        methods={"DELETE": (401, 403, 403, 204, 401), "OPTIONS": FOR_STAFF},
        otherwise=(401, 403, 403, 405, 401),
    ),
    "users": Route(
        path="/api/v1/users",
        methods={**dict.fromkeys(("GET", "HEAD"), FOR_STAFF), "OPTIONS": READ},
        otherwise=(401, 403, 403, 405, 401),
    ),
    "user": Route(  # {name} is somebody else
        path="/api/v1/users/{name}",
        methods={
            **dict.fromkeys(("GET", "HEAD"), (401, 404, 404, 200, 401)),
            "PATCH": (401, 403, 403, 422, 401),  # the quota
            "OPTIONS": READ,
        },
        otherwise=(401, 403, 403, 405, 401),
    ),
    "user-disable": staff_action("disable", 200),
    "user-enable": staff_action("enable", 200),
    "user-sign-out": staff_action("sign-out", 204),
    "user-send-reset": staff_action("send-reset", 202),
    "profile": Route(
        path="/api/v1/users/me",
        methods={
            **readable(),
            "PATCH": (401, 200, 403, 200, 401),  # nothing to change is fine
            "DELETE": NEEDS_WRITE,
        },
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "export": Route(
        path="/api/v1/users/me/export", methods=readable(), otherwise=NO_METHOD_FOR_USERS
    ),
    "deactivate": Route(
        path="/api/v1/users/me/deactivate",
        methods={"POST": NEEDS_WRITE, "OPTIONS": READ, **NOT_READABLE},
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "password": Route(
        path="/api/v1/users/me/password",
        methods={"POST": NEEDS_WRITE, "OPTIONS": READ, **NOT_READABLE},
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "logout": Route(
        path="/api/v1/auth/logout",
        methods={"POST": (401, 204, 204, 204, 401), "OPTIONS": READ},
        otherwise=(401, 405, 405, 405, 401),  # a credential that may only read may end itself
    ),
    "sessions": Route(
        path="/api/v1/auth/sessions",
        methods={**readable(), "DELETE": DONE},
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "session": Route(  # {session} is another user's
        path="/api/v1/auth/sessions/{session}",
        methods={"DELETE": (401, 404, 403, 404, 401), "OPTIONS": READ, **NOT_READABLE},
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "keys": Route(
        path="/api/v1/keys",
        methods={**readable(), "POST": NEEDS_WRITE},
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "key": Route(  # {key} is another user's
        path="/api/v1/keys/{key}",
        methods={
            "GET": (401, 404, 404, 404, 401),
            "HEAD": (401, 404, 404, 404, 401),
            "DELETE": (401, 404, 403, 404, 401),
            "OPTIONS": READ,
        },
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "me": Route(path="/api/v1/auth/me", methods=readable(), otherwise=NO_METHOD_FOR_USERS),
    "process": Route(
        path="/api/v1/consciousness/process",
        methods={
            "POST": NEEDS_WRITE,
            "OPTIONS": READ,
            **NOT_READABLE,
        },
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "query": Route(
        path="/api/v1/consciousness/query",
        methods={
            "POST": NEEDS_WRITE,
            "OPTIONS": READ,
            **NOT_READABLE,
        },
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "state": Route(
        path="/api/v1/consciousness/state", methods=readable(), otherwise=NO_METHOD_FOR_USERS
    ),
    "status": Route(
        path="/api/v1/consciousness/status", methods=readable(), otherwise=NO_METHOD_FOR_USERS
    ),
    "chat-completions": openai_post("chat/completions"),
    "completions": openai_post("completions"),
    "embeddings": openai_post("embeddings"),
    "models": Route(path="/v1/models", methods=readable(), otherwise=NO_METHOD_FOR_USERS),
    "model": Route(path="/v1/models/{model}", methods=readable(), otherwise=NO_METHOD_FOR_USERS),
    "audit": Route(
        path="/api/v1/audit",
        methods=dict.fromkeys(("GET", "HEAD", "OPTIONS"), FOR_STAFF),
        otherwise=(401, 403, 403, 405, 401),
    ),
    "usage": Route(path="/api/v1/usage", methods=readable(), otherwise=NO_METHOD_FOR_USERS),
    "queries-list": Route(
        path="/api/v1/consciousness/queries",
        methods={**readable(), "DELETE": DONE},
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "queries-detail": somebody_elses("consciousness/queries/{query}", "DELETE"),
    "conversations-list": Route(
        path="/api/v1/consciousness/conversations",
        methods=readable(),
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "conversations-detail": Route(
        path="/api/v1/consciousness/conversations/{conversation}",
        methods={
            **somebody_elses("", "DELETE").methods,
            "PATCH": NEEDS_WRITE,
        },
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "conversations-messages": somebody_elses("consciousness/conversations/{conversation}/messages"),
    "memories-list": Route(
        path="/api/v1/consciousness/memories",
        methods={**readable(), "POST": NEEDS_WRITE},
        otherwise=NO_METHOD_FOR_USERS,
    ),
    "memories-detail": somebody_elses("consciousness/memories/{memory}", "PATCH", "DELETE"),
}


@dataclass(frozen=True, kw_only=True)
class AdminPage:
    """GET, by browser session: nobody, a user, staff without further rights, a superuser."""

    path: str
    statuses: tuple[int, int, int, int]


TO_LOGIN = (302, 302)


def admin(path: str, staff: int, superuser: int) -> AdminPage:
    return AdminPage(path=f"/admin/{path}", statuses=(*TO_LOGIN, staff, superuser))


def read_only_model(path: str, name: str) -> dict[str, AdminPage]:
    """All pages of a model that nobody changes there; `{name}` is a row's id."""
    prefix = f"admin:{path.replace('/', '_')}"
    return {
        f"{prefix}_changelist": admin(f"{path}/", 403, 200),
        f"{prefix}_add": admin(f"{path}/add/", 403, 403),
        f"{prefix}_change": admin(f"{path}/{{{name}}}/change/", 403, 200),
        f"{prefix}_history": admin(f"{path}/{{{name}}}/history/", 403, 200),
        f"{prefix}_delete": admin(f"{path}/{{{name}}}/delete/", 403, 403),
    }


ADMIN_PAGES: dict[str, AdminPage] = {
    "admin:index": admin("", 200, 200),
    "admin:login": AdminPage(path="/admin/login/", statuses=(200, 200, 302, 302)),
    "admin:second-factor": admin("second-factor/", 200, 200),
    "admin:logout": admin("logout/", 405, 405),
    "admin:password_change": admin("password_change/", 200, 200),
    "admin:password_change_done": admin("password_change/done/", 200, 200),
    "admin:autocomplete": admin("autocomplete/", 403, 403),
    "admin:jsi18n": admin("jsi18n/", 200, 200),
    "admin:view_on_site": admin("r/0/{user}/", 404, 404),
    "admin:app_list": admin("accounts/", 404, 200),
    "admin:auth_user_password_change": admin("accounts/user/{user}/password/", 403, 200),
    "admin:accounts_user_changelist": admin("accounts/user/", 403, 200),
    "admin:accounts_user_add": admin("accounts/user/add/", 403, 200),
    "admin:accounts_user_change": admin("accounts/user/{user}/change/", 403, 200),
    "admin:accounts_user_history": admin("accounts/user/{user}/history/", 403, 200),
    "admin:accounts_user_delete": admin("accounts/user/{user}/delete/", 403, 200),
    "admin:accounts_session_changelist": admin("accounts/session/", 403, 200),
    "admin:accounts_session_add": admin("accounts/session/add/", 403, 403),
    "admin:accounts_session_change": admin("accounts/session/{session}/change/", 403, 200),
    "admin:accounts_session_history": admin("accounts/session/{session}/history/", 403, 200),
    "admin:accounts_session_delete": admin("accounts/session/{session}/delete/", 403, 403),
    "admin:accounts_apikey_changelist": admin("accounts/apikey/", 403, 200),
    "admin:accounts_apikey_add": admin("accounts/apikey/add/", 403, 403),
    "admin:accounts_apikey_change": admin("accounts/apikey/{key}/change/", 403, 200),
    "admin:accounts_apikey_history": admin("accounts/apikey/{key}/history/", 403, 200),
    "admin:accounts_apikey_delete": admin("accounts/apikey/{key}/delete/", 403, 403),
    "admin:consciousness_query_changelist": admin("consciousness/query/", 403, 200),
    "admin:consciousness_query_add": admin("consciousness/query/add/", 403, 403),
    "admin:consciousness_query_change": admin("consciousness/query/{query}/change/", 403, 200),
    "admin:consciousness_query_history": admin("consciousness/query/{query}/history/", 403, 200),
    "admin:consciousness_query_delete": admin("consciousness/query/{query}/delete/", 403, 403),
    "admin:monitoring_backuprecord_changelist": admin("monitoring/backuprecord/", 403, 200),
    "admin:monitoring_backuprecord_add": admin("monitoring/backuprecord/add/", 403, 403),
    "admin:monitoring_backuprecord_change": admin(
        "monitoring/backuprecord/{backup}/change/", 403, 200
    ),
    "admin:monitoring_backuprecord_history": admin(
        "monitoring/backuprecord/{backup}/history/", 403, 200
    ),
    "admin:monitoring_backuprecord_delete": admin(
        "monitoring/backuprecord/{backup}/delete/", 403, 403
    ),
    "admin:consciousness_upstream_changelist": admin("consciousness/upstream/", 403, 200),
    "admin:consciousness_upstream_add": admin("consciousness/upstream/add/", 403, 200),
    "admin:consciousness_upstream_change": admin(
        "consciousness/upstream/{engine}/change/", 403, 200
    ),
    "admin:consciousness_upstream_history": admin(
        "consciousness/upstream/{engine}/history/", 403, 200
    ),
    "admin:consciousness_upstream_delete": admin(
        "consciousness/upstream/{engine}/delete/", 403, 200
    ),
    "admin:consciousness_modelalias_changelist": admin("consciousness/modelalias/", 403, 200),
    "admin:consciousness_modelalias_add": admin("consciousness/modelalias/add/", 403, 200),
    "admin:consciousness_modelalias_change": admin(
        "consciousness/modelalias/{alias}/change/", 403, 200
    ),
    "admin:consciousness_modelalias_history": admin(
        "consciousness/modelalias/{alias}/history/", 403, 200
    ),
    "admin:consciousness_modelalias_delete": admin(
        "consciousness/modelalias/{alias}/delete/", 403, 200
    ),
    **read_only_model("monitoring/auditevent", "event"),
    **read_only_model("monitoring/auditseal", "seal"),
    **read_only_model("monitoring/auditarchive", "archive"),
}
# Django's catch-alls inside the admin have no name; each only redirects or answers 404.
UNNAMED = {
    r"admin/accounts/user/<path:object_id>/",
    r"admin/accounts/apikey/<path:object_id>/",
    r"admin/accounts/session/<path:object_id>/",
    r"admin/consciousness/query/<path:object_id>/",
    r"admin/monitoring/backuprecord/<path:object_id>/",
    r"admin/consciousness/upstream/<path:object_id>/",
    r"admin/consciousness/modelalias/<path:object_id>/",
    r"admin/monitoring/auditevent/<path:object_id>/",
    r"admin/monitoring/auditseal/<path:object_id>/",
    r"admin/monitoring/auditarchive/<path:object_id>/",
    r"admin/(?P<url>.*)$",
}
