"""Forms of the admin site and of the public pages: the rules are those of the API."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.password_validation import validate_password

from accounts.identity import canonical
from accounts.models import User
from accounts.validators import (
    MAX_ADDRESS_LENGTH,
    validate_address,
    validate_line,
    validate_name,
)


class _Identity(forms.ModelForm):  # type: ignore[type-arg]
    """Canonical spellings are not on the form, so Django does not check that they are unique."""

    def clean_username(self) -> str:
        return self._checked("username", validate_name)

    def clean_email(self) -> str:
        return self._checked("email", validate_address)

    def clean_full_name(self) -> str:
        value: str = self.cleaned_data["full_name"]
        if "full_name" in self.changed_data:
            validate_line(value)
        return value

    def _checked(self, field: str, validate: Any) -> str:
        value: str = self.cleaned_data[field]
        if field in self.changed_data:
            validate(value)
        others = User.objects.exclude(pk=self.instance.pk)
        if others.filter(**{f"{field}_canonical": canonical(value)}).exists():
            raise forms.ValidationError("This is taken.", code="unique")
        return value


class UserAddForm(_Identity, AdminUserCreationForm):  # type: ignore[type-arg]
    pass


class UserEditForm(_Identity, UserChangeForm):  # type: ignore[type-arg]
    pass


class _Styled(forms.Form):
    """A form of the public pages."""

    template_name = "forms/fields.html"


class AddressForm(_Styled):
    email = forms.CharField(
        label="E-mail address",
        max_length=MAX_ADDRESS_LENGTH,
        validators=[validate_address],
        widget=forms.EmailInput(attrs={"autocomplete": "email", "autofocus": True}),
    )


class NewPasswordForm(_Styled):
    """Takes the token of the page's link along; refuses a password that its user may not have."""

    token = forms.CharField(max_length=200, widget=forms.HiddenInput)
    new_password = forms.CharField(
        label="New password",
        max_length=1024,
        strip=False,
        help_text="8 characters or more: upper case, lower case and a digit.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password", "autofocus": True}),
    )
    repeated = forms.CharField(
        label="The same again",
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user = user

    def clean_new_password(self) -> str:
        password: str = self.cleaned_data["new_password"]
        validate_password(password, self._user)
        return password

    def clean(self) -> dict[str, Any] | None:
        given = super().clean() or {}
        if "new_password" in given and given.get("repeated") != given["new_password"]:
            self.add_error("repeated", "The two passwords differ.")
        return given


class TokenForm(_Styled):
    token = forms.CharField(max_length=200, widget=forms.HiddenInput)


class VerifyForm(TokenForm):
    password = forms.CharField(
        label="The password that you chose",
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
    )
    username = forms.CharField(
        label="Another user name",
        required=False,
        max_length=50,
        validators=[validate_name],
        help_text="Only if the one you chose is taken by now.",
    )


class RegisterForm(_Styled):
    token = forms.CharField(max_length=200, required=False, widget=forms.HiddenInput)
    username = forms.CharField(
        label="User name",
        max_length=50,
        validators=[validate_name],
        help_text="3 to 50 letters, digits, underscores or hyphens.",
        widget=forms.TextInput(attrs={"autocomplete": "username", "autofocus": True}),
    )
    email = forms.CharField(
        label="E-mail address",
        max_length=MAX_ADDRESS_LENGTH,
        validators=[validate_address],
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    full_name = forms.CharField(
        label="Full name", required=False, max_length=150, validators=[validate_line]
    )
    password = forms.CharField(
        max_length=1024,
        strip=False,
        help_text="8 characters or more: upper case, lower case and a digit.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any] | None:
        given = super().clean() or {}
        if {"username", "email", "password"} <= set(given):
            # A full name that is refused itself is not there.
            names = {name: given.get(name, "") for name in ("username", "email", "full_name")}
            try:
                validate_password(given["password"], User(**names))
            except forms.ValidationError as error:
                self.add_error("password", error)
        return given
