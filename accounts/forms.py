"""Forms of the admin site: an account made or renamed there obeys the rules of registration."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm

from accounts.identity import canonical
from accounts.models import User
from accounts.validators import validate_address, validate_name


class _Identity(forms.ModelForm):  # type: ignore[type-arg]
    """Canonical spellings are not on the form, so Django does not check that they are unique."""

    def clean_username(self) -> str:
        return self._checked("username", validate_name)

    def clean_email(self) -> str:
        return self._checked("email", validate_address)

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
