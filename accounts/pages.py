"""The public pages that mailed links lead to, and those that ask for such a mail.

Opening a link uses nothing up, for mail scanners open links too; only the form on it does.
"""

from __future__ import annotations

from django.conf import settings
from django.forms import Form
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts import hashing, services
from accounts.forms import AddressForm, NewPasswordForm, RegisterForm, TokenForm, VerifyForm
from accounts.models import Link, Purpose
from accounts.views.registration import limit_guesses
from sovereigncore import ratelimit

page = require_http_methods(["GET", "HEAD", "POST"])


@never_cache
@page
def request_reset(request: HttpRequest) -> HttpResponse:
    form = AddressForm(_posted(request))
    if request.method == "POST" and form.is_valid():
        ratelimit.enforce(request, group="reset", rate=settings.RATE_LIMIT_RESET)
        services.request_reset(email=form.cleaned_data["email"])
        return _done(
            request,
            "Look into your mail",
            "If there is an account with this address, a mail with a link is on its way.",
        )
    return _form(request, form, "Reset your password", "Send me a link")


@never_cache
@page
def confirm_reset(request: HttpRequest) -> HttpResponse:
    link = _link(request, Purpose.RESET_PASSWORD)
    assert link.user is not None
    token = {"token": _token(request)}
    form = NewPasswordForm(_posted(request), initial=token, user=link.user)
    if request.method == "POST" and form.is_valid():
        services.reset_password(link=link, new_password=form.cleaned_data["new_password"])
        return _done(
            request,
            "Your password is changed",
            "All sessions and API keys have ended. Log in anew.",
        )
    return _form(request, form, "Choose a new password", "Change password")


@never_cache
@page
def verify_address(request: HttpRequest) -> HttpResponse:
    link = _link(request, Purpose.VERIFY_ADDRESS)
    form = VerifyForm(_posted(request), initial={"token": _token(request)})
    if request.method == "POST" and form.is_valid():
        limit_guesses(request, link)
        given = dict(form.cleaned_data)
        del given["token"]
        try:
            user = services.verify_address(link, **given)
        except services.WrongPassword as wrong:
            form.add_error("password", wrong.detail)
        except services.IdentityTaken as taken:
            _show(taken, form)
        else:
            return _done(request, "Your account is ready", f"Log in as {user.username}.")
    assert link.registration is not None
    return _form(request, form, f"Create {link.registration.username}?", "Create my account")


@never_cache
@page
def confirm_address_change(request: HttpRequest) -> HttpResponse:
    link = _link(request, Purpose.CHANGE_ADDRESS)
    form = TokenForm(_posted(request), initial={"token": _token(request)})
    if request.method == "POST" and form.is_valid():
        user = services.change_address(link)
        return _done(request, "Your address is changed", f"Mails go to {user.email} from now on.")
    return _form(request, form, f"Use {link.address}?", "Use this address")


@never_cache
@page
def register(request: HttpRequest) -> HttpResponse:
    form = RegisterForm(_posted(request), initial={"token": _token(request)})
    if request.method == "POST":
        if form.is_valid():
            hashing.enforce_limit(request, group="register", rate=settings.RATE_LIMIT_REGISTER)
            given = dict(form.cleaned_data)
            invitation = given.pop("token")
            try:
                user = services.register(services.Applicant(**given), invitation=invitation)
            except services.IdentityTaken as taken:
                _show(taken, form)
            else:
                if user is not None:
                    return _done(request, "Your account is ready", f"Log in as {user.username}.")
                return _done(
                    request,
                    "Look into your mail",
                    "If the address can be used, a mail with a link is on its way to it.",
                )
    else:
        services.check_open(invitation=_token(request))
    return _form(request, form, "Create an account", "Create account")


def _posted(request: HttpRequest) -> QueryDict | None:
    return request.POST if request.method == "POST" else None


def _token(request: HttpRequest) -> str:
    given = request.POST if request.method == "POST" else request.GET
    return given.get("token", "")[:200]


def _link(request: HttpRequest, purpose: Purpose) -> Link:
    return services.find_link(purpose, _token(request))


def _show(taken: services.IdentityTaken, form: Form) -> None:
    for field, messages in (taken.errors or {}).items():
        for message in messages:
            form.add_error(field if field in form.fields else None, message)


def _form(request: HttpRequest, form: Form, title: str, action: str) -> HttpResponse:
    status = 422 if form.is_bound and form.errors else 200
    context = {"form": form, "title": title, "action": action}
    return render(request, "registration/form.html", context, status=status)


def _done(request: HttpRequest, title: str, detail: str) -> HttpResponse:
    return render(request, "registration/done.html", {"title": title, "detail": detail})
