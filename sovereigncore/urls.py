"""The whole route table: one line a route. API routes take a trailing slash or none."""

from __future__ import annotations

from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularSwaggerSplitView

from accounts import pages as account_pages
from accounts import views as accounts
from consciousness import views as consciousness
from monitoring import views as monitoring
from monitoring.audit.views import AuditView
from sovereigncore import pages
from sovereigncore.routing import Router, page_route, route
from sovereigncore.schema import SchemaView

handler400 = "sovereigncore.errors.bad_request"
handler403 = "sovereigncore.errors.permission_denied"
handler404 = "sovereigncore.errors.not_found"
handler500 = "sovereigncore.errors.server_error"

API = "api/v1/"

router = Router()
router.register("consciousness/queries", consciousness.QueryViewSet, basename="queries")
router.register(
    "consciousness/conversations", consciousness.ConversationViewSet, basename="conversations"
)
router.register("consciousness/memories", consciousness.MemoryViewSet, basename="memories")

urlpatterns = [
    path("", pages.home, name="home"),
    route("live", monitoring.live, "live"),
    route("ready", monitoring.ready, "ready"),
    route("health", monitoring.full, "health"),
    route("metrics", monitoring.exposition, "metrics"),
    route(r"\.well-known/jwks\.json", accounts.JWKSView.as_view(), "jwks"),
    route(f"{API}auth/token", accounts.TokenView.as_view(), "token"),
    route(f"{API}auth/token/refresh", accounts.TokenRefreshView.as_view(), "token-refresh"),
    route(f"{API}auth/logout", accounts.LogoutView.as_view(), "logout"),
    route(f"{API}auth/me", accounts.MeView.as_view(), "me"),
    route(
        f"{API}auth/sessions",
        accounts.SessionViewSet.as_view({"get": "list", "delete": "end_all"}),
        "sessions",
    ),
    route(
        f"{API}auth/sessions/<uuid:pk>",
        accounts.SessionViewSet.as_view({"delete": "end"}),
        "session",
    ),
    route(f"{API}keys", accounts.KeyViewSet.as_view({"get": "list", "post": "create"}), "keys"),
    route(
        f"{API}keys/<uuid:pk>",
        accounts.KeyViewSet.as_view({"get": "retrieve", "delete": "revoke"}),
        "key",
    ),
    route(f"{API}users/register", accounts.RegisterView.as_view(), "register"),
    route(f"{API}users/verify-email", accounts.VerifyAddressView.as_view(), "verify-email"),
    route(
        f"{API}users/invitations",
        accounts.InvitationViewSet.as_view({"get": "list", "post": "create"}),
        "invitations",
    ),
    route(
        f"{API}users/invitations/<uuid:pk>",
        accounts.InvitationViewSet.as_view({"delete": "revoke"}),
        "invitation",
    ),
    route(
        f"{API}users/password-reset/request",
        accounts.PasswordResetRequestView.as_view(),
        "password-reset-request",
    ),
    route(
        f"{API}users/password-reset/confirm",
        accounts.PasswordResetConfirmView.as_view(),
        "password-reset-confirm",
    ),
    route(f"{API}users/email-change/confirm", accounts.AddressChangeView.as_view(), "email-change"),
    route(f"{API}users/me", accounts.ProfileView.as_view(), "profile"),
    route(f"{API}users/me/export", accounts.ExportView.as_view(), "export"),
    route(f"{API}users/me/deactivate", accounts.DeactivateView.as_view(), "deactivate"),
    route(f"{API}users/me/password", accounts.PasswordView.as_view(), "password"),
    route(f"{API}users", accounts.UserViewSet.as_view({"get": "list"}), "users"),
    route(
        f"{API}users/<name:username>",
        accounts.UserViewSet.as_view({"get": "retrieve", "patch": "set_quota"}),
        "user",
    ),
    *(
        route(
            f"{API}users/<name:username>/{path}",
            accounts.UserViewSet.as_view({"post": action}),
            f"user-{path}",
        )
        for path, action in (
            ("disable", "disable"),
            ("enable", "enable"),
            ("sign-out", "sign_out"),
            ("send-reset", "send_reset"),
        )
    ),
    route(f"{API}consciousness/process", consciousness.ProcessView.as_view(), "process"),
    route(f"{API}consciousness/query", consciousness.QueryView.as_view(), "query"),
    route(f"{API}consciousness/state", consciousness.StateView.as_view(), "state"),
    route(f"{API}consciousness/status", consciousness.StatusView.as_view(), "status"),
    route(f"{API}audit", AuditView.as_view(), "audit"),
    route(f"{API}usage", consciousness.UsageView.as_view(), "usage"),
    re_path(rf"^{API}", include(router.urls)),
    route("v1/chat/completions", consciousness.ChatCompletionsView.as_view(), "chat-completions"),
    route("v1/completions", consciousness.CompletionsView.as_view(), "completions"),
    route("v1/embeddings", consciousness.EmbeddingsView.as_view(), "embeddings"),
    route("v1/models", consciousness.ModelsView.as_view(), "models"),
    route("v1/models/<any:model>", consciousness.ModelView.as_view(), "model"),
    route("api/schema", SchemaView.as_view(), "schema"),
    page_route("register", account_pages.register, "register-page"),
    page_route("verify-email", account_pages.verify_address, "verify-email-page"),
    page_route("password-reset", account_pages.request_reset, "reset-page"),
    page_route("password-reset/confirm", account_pages.confirm_reset, "reset-confirm-page"),
    page_route("email-change/confirm", account_pages.confirm_address_change, "email-change-page"),
    path("admin", pages.to_admin, name="to-admin"),
    path("admin/", admin.site.urls),
]
if settings.API_DOCS:
    urlpatterns.append(
        route(
            "api/docs",
            SpectacularSwaggerSplitView.as_view(
                url_name="schema", authentication_classes=[], permission_classes=[]
            ),
            "docs",
        )
    )
