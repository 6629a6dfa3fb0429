"""The admin site: Django's own, with its login limited like every other login, and a second factor
for whoever has one or where all need one."""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Any

import django_otp
import qrcode.image.svg
from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.forms import CharField
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.decorators import method_decorator
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods
from django_otp.plugins.otp_totp.models import TOTPDevice

from accounts import hashing
from accounts.services import second_factor
from monitoring import metrics
from sovereigncore import ratelimit


class LoginForm(AdminAuthenticationForm):
    """Takes an e-mail address too, which may be longer than a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["username"]
        assert isinstance(field, CharField)
        field.max_length = 254
        field.widget.attrs["maxlength"] = 254


class SovereignAdminSite(AdminSite):
    site_title = site_header = "SovereignCore"
    index_title = "Administration"
    login_form = LoginForm

    def has_permission(self, request: HttpRequest) -> bool:
        return super().has_permission(request) and not self._lacks_code(request)

    def _lacks_code(self, request: HttpRequest) -> bool:
        user: Any = request.user
        return not user.is_verified() and second_factor.is_needed(user)

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if super().has_permission(request) and self._lacks_code(request):
            query = request.GET.urlencode()
            return redirect(f"{reverse('admin:second-factor')}?{query}")
        if request.method != "POST":
            return super().login(request, extra_context)
        hashing.enforce_limit(request, group="auth", rate=settings.RATE_LIMIT_AUTH)
        response = super().login(request, extra_context)
        is_in = response.status_code == HTTPStatus.FOUND
        metrics.LOGINS.labels("ok" if is_in else "refused").inc()
        return response

    def get_urls(self) -> list[URLResolver | URLPattern]:
        own = [path("second-factor/", self.second_factor, name="second-factor")]
        return [*own, *super().get_urls()]

    @method_decorator((never_cache, csrf_protect, require_http_methods(["GET", "HEAD", "POST"])))
    def second_factor(self, request: HttpRequest) -> HttpResponse:
        """Give the code, enrol, or, once that is done, renew the backup codes or give it up."""
        if not super().has_permission(request):
            return redirect("admin:login")
        if request.method == "POST":
            ratelimit.enforce(
                request,
                group="auth",
                rate=settings.RATE_LIMIT_AUTH,
                caller=f"otp:{request.user.pk}",
            )
        user: Any = request.user
        if not second_factor.is_enrolled(user):
            return self._enrol(request)
        if not user.is_verified():
            return self._verify(request)
        if request.POST.get("action") == "renew":
            return self._show(request, codes=second_factor.renew_backup_codes(user))
        if request.POST.get("action") == "remove" and not settings.ADMIN_REQUIRE_OTP:
            second_factor.remove(user, actor_id=user.id)
            messages.success(request, "The second factor is off.")
            return redirect("admin:index")
        return self._show(request)

    def _enrol(self, request: HttpRequest) -> HttpResponse:
        user: Any = request.user
        error = ""
        if request.method == "POST":
            try:
                device, codes = second_factor.confirm_enrolment(user, request.POST.get("code", ""))
            except second_factor.WrongCode as wrong:
                error = wrong.detail
            else:
                django_otp.login(request, device)
                return self._show(request, codes=codes)
        device = second_factor.begin_enrolment(user)
        return self._show(
            request, error=error, secret=second_factor.secret_of(device), qr_code=_qr_code(device)
        )

    def _verify(self, request: HttpRequest) -> HttpResponse:
        user: Any = request.user
        if request.method != "POST":
            return self._show(request)
        device = second_factor.check_code(user, request.POST.get("code", "")[:40])
        if device is None:
            metrics.LOGINS.labels("wrong_code").inc()
            return self._show(request, error=second_factor.WrongCode.default_detail)
        django_otp.login(request, device)
        return HttpResponseRedirect(_safe_next(request))

    def _show(self, request: HttpRequest, **context: Any) -> HttpResponse:
        status = 403 if context.get("error") else 200
        known = {
            **self.each_context(request),
            "title": "Second factor",
            "may_be_removed": not settings.ADMIN_REQUIRE_OTP,
            "next": request.POST.get(REDIRECT_FIELD_NAME) or request.GET.get(REDIRECT_FIELD_NAME),
        }
        return render(request, "admin/second_factor.html", {**known, **context}, status=status)


def _safe_next(request: HttpRequest) -> str:
    target = request.POST.get(REDIRECT_FIELD_NAME, "")
    is_safe = url_has_allowed_host_and_scheme(
        target, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return target if is_safe else reverse("admin:index")


def _qr_code(device: TOTPDevice) -> str:
    """An SVG as a data URI: nothing that is fetched, and nothing that is script."""
    image = qrcode.make(device.config_url, image_factory=qrcode.image.svg.SvgPathImage)
    return f"data:image/svg+xml;base64,{_base64(image.to_string())}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
