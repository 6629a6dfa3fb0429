"""What operators enter about engines and models."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from django import forms

from consciousness.engine_configuration import DEFAULT_NAME, NAME
from consciousness.engine_keys import seal
from consciousness.engine_outbound import URLRefused, check_url
from consciousness.models import ModelAlias, Upstream

_KEY = re.compile(r"[\x21-\x7e]+")  # what a header can carry


class UpstreamForm(forms.ModelForm[Upstream]):
    """The API key goes in and never comes out: an empty field keeps it."""

    # Not the model's own field, whose validator refuses names without a dot, such as those of
    # other containers.
    address = forms.CharField(
        label="URL",
        max_length=300,
        help_text="Such as http://gpu:8000, without /v1. Private addresses are fine.",
    )
    api_key = forms.CharField(
        label="API key",
        required=False,
        max_length=500,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="Empty keeps the one there is.",
    )
    clear_api_key = forms.BooleanField(label="Forget the API key", required=False)

    class Meta:
        model = Upstream
        fields = ("name", "slots", "weight", "priority", "is_enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("address", self.instance.url)

    @property
    def changed_fields(self) -> list[str]:
        """For the record: the names of what was changed, never its values."""
        names = {"address": "url", "clear_api_key": "api_key"}
        return sorted({names.get(field, field) for field in self.changed_data})

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not NAME.fullmatch(name):
            raise forms.ValidationError("Small letters, digits, hyphens and underscores only.")
        if name == DEFAULT_NAME:
            raise forms.ValidationError("This is the name of the engine that ENGINE_URL names.")
        return name

    def clean_address(self) -> str:
        url: str = self.cleaned_data["address"].rstrip("/")
        if url == self.instance.url:
            return url  # whoever switches an engine off needs no name server for it
        if url.endswith("/v1"):
            raise forms.ValidationError("Leave out /v1, which is added.")
        try:
            check_url(url)
        except URLRefused as error:
            raise forms.ValidationError(str(error)) from error
        return url

    def clean_api_key(self) -> str:
        api_key: str = self.cleaned_data["api_key"]
        if api_key and not _KEY.fullmatch(api_key):
            raise forms.ValidationError("Letters, digits and signs of ASCII only.")
        return api_key

    def clean(self) -> None:
        super().clean()
        given = self.cleaned_data
        if given.get("api_key") and given.get("clear_api_key"):
            self.add_error("clear_api_key", "Either a new key or none.")
        if self._sends_kept_key_elsewhere():
            # Or whoever may change the URL could have the key sent to a server of their own.
            self.add_error(
                "api_key", "The URL leads to another server: enter the key again, or forget it."
            )

    def _sends_kept_key_elsewhere(self) -> bool:
        given = self.cleaned_data
        if not self.instance.sealed_api_key or given.get("api_key") or given.get("clear_api_key"):
            return False
        return _origin(given.get("address", self.instance.url)) != _origin(self.instance.url)

    def save(self, commit: bool = True) -> Upstream:
        self.instance.url = self.cleaned_data["address"]
        if self.cleaned_data["api_key"]:
            self.instance.sealed_api_key = seal(self.cleaned_data["api_key"])
        elif self.cleaned_data["clear_api_key"]:
            self.instance.sealed_api_key = b""
        return super().save(commit)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


_NO_CHAINS = "An alias names a model, never another alias."


class ModelAliasForm(forms.ModelForm[ModelAlias]):
    class Meta:
        model = ModelAlias
        fields = ("alias", "model", "is_enabled")

    @property
    def changed_fields(self) -> list[str]:
        return sorted(self.changed_data)

    def clean(self) -> None:
        super().clean()
        alias, model = self.cleaned_data.get("alias"), self.cleaned_data.get("model")
        if alias == model:
            self.add_error("alias", "This is the model's own name.")
            return
        # Disabled ones too: they can be enabled without this form.
        others = ModelAlias.objects.exclude(pk=self.instance.pk)
        if others.filter(alias=model).exists():
            self.add_error("model", f"This is an alias. {_NO_CHAINS}")
        if leading_here := others.filter(model=alias).first():
            text = f"Another alias, {leading_here.alias}, has this as its model. {_NO_CHAINS}"
            self.add_error("alias", text)
