"""Engines and aliases in the admin site: what is done there holds at once and is on record, and no
key that goes in ever comes out."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import transaction
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from accounts.models import User
from consciousness import engine_admin, engine_outbound, engines
from consciousness.engine_keys import SealBroken, seal, unseal
from consciousness.models import ModelAlias, Upstream
from consciousness.tests.asking import STATE
from consciousness.tests.several import names
from monitoring.models import AuditEvent
from tests.log_capture import LogCapture
from tests.stub_engine import MODEL, StubEngine

ENGINES = "/admin/consciousness/upstream/"
ALIASES = "/admin/consciousness/modelalias/"
RULE = "An alias names a model, never another alias."
KEY = "sk-canary-key-of-an-engine"


@pytest.fixture
def site(staff: User) -> Client:
    client = Client()
    client.force_login(staff)
    return client


def form_for(**values: Any) -> dict[str, Any]:
    """What a browser sends; None unticks a box."""
    form = {
        "name": "gpu",
        "address": "http://10.0.0.3:8000",
        "api_key": "",
        "slots": "4",
        "weight": "1",
        "priority": "0",
        "is_enabled": "on",
        **values,
    }
    return {name: value for name, value in form.items() if value is not None}


def form_of(row: Upstream, **values: Any) -> dict[str, Any]:
    """The form of an engine as its page shows it, but for `values`."""
    shown = {
        "name": row.name,
        "address": row.url,
        "slots": str(row.slots),
        "weight": str(row.weight),
        "priority": str(row.priority),
        "is_enabled": "on" if row.is_enabled else None,
    }
    return form_for(**{**shown, **values})


def add(site: Client, **values: Any) -> Upstream:
    response = site.post(f"{ENGINES}add/", form_for(**values))
    assert response.status_code == 302, response.context["adminform"].form.errors
    return Upstream.objects.get(name=values.get("name", "gpu"))


def change(site: Client, row: Upstream, **values: Any) -> Any:
    row.refresh_from_db()
    return site.post(f"{ENGINES}{row.pk}/change/", form_of(row, **values))


def form_errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    errors: dict[str, list[str]] = response.context["adminform"].form.errors
    return errors


def record() -> list[tuple[str, str, Any]]:
    events = AuditEvent.objects.filter(action__regex="^(engine|alias)").order_by("id")
    return [(event.action, event.subject_id, event.detail) for event in events]


def key_of(row: Upstream) -> str:
    row.refresh_from_db()
    return unseal(bytes(row.sealed_api_key))


# --- the key -------------------------------------------------------------------------------


def test_a_key_goes_in_sealed_and_never_comes_out(
    site: Client, staff: User, logs: LogCapture, settings: Settings
) -> None:
    row = add(site, api_key=KEY)
    assert key_of(row) == KEY
    assert KEY.encode() not in bytes(row.sealed_api_key)
    pages = [
        site.get(path).content.decode()
        for path in (
            *(ENGINES, f"{ENGINES}{row.pk}/change/", f"{ENGINES}{row.pk}/history/"),
            *(f"{ENGINES}{row.pk}/delete/", "/admin/"),
        )
    ]
    refused = site.post(f"{ENGINES}{row.pk}/change/", form_of(row, api_key=KEY, slots="x"))
    assert "slots" in form_errors(refused)
    told = (
        *pages,
        refused.content.decode(),
        str(list(AuditEvent.objects.values())),
        str(list(LogEntry.objects.values())),
        logs.text,
    )
    sealed = bytes(row.sealed_api_key).decode()
    for text in told:
        assert KEY not in text
        assert sealed not in text
    assert "kept" in pages[1]


def test_an_empty_field_keeps_the_key_and_a_tick_forgets_it(site: Client, db: None) -> None:
    row = add(site, api_key=KEY)
    assert change(site, row, slots="5").status_code == 302
    assert key_of(row) == KEY
    assert change(site, row, api_key="another").status_code == 302
    assert key_of(row) == "another"
    both = change(site, row, api_key="third", clear_api_key="on")
    assert list(form_errors(both)) == ["clear_api_key"]
    assert key_of(row) == "another"
    assert change(site, row, clear_api_key="on").status_code == 302
    assert key_of(row) == ""
    assert [detail for _, _, detail in record()] == [
        {"fields": ["api_key", "name", "url"]},  # the others are as they were offered
        {"fields": ["slots"]},
        {"fields": ["api_key"]},
        {"fields": ["api_key"]},
    ]


@pytest.mark.parametrize("key", ["with space", "line\nbreak", "pass\u00e9", "x" * 501])
def test_keys_that_no_header_can_carry(site: Client, key: str) -> None:
    response = site.post(f"{ENGINES}add/", form_for(api_key=key))
    assert list(form_errors(response)) == ["api_key"]
    assert not Upstream.objects.exists()


@pytest.mark.parametrize(
    "address",
    [
        "http://10.0.0.66:8000",
        "http://10.0.0.3:8001",
        "https://10.0.0.3:8000",
        "http://10.0.0.3",
    ],
)
def test_a_kept_key_is_sent_to_no_other_server(site: Client, address: str) -> None:
    """Whoever may change the URL could read it there."""
    row = add(site, api_key=KEY)
    assert list(form_errors(change(site, row, address=address))) == ["api_key"]
    row.refresh_from_db()
    assert row.url == "http://10.0.0.3:8000"
    assert change(site, row, address=f"{row.url}/openai").status_code == 302
    assert key_of(row) == KEY
    assert change(site, row, address=address, clear_api_key="on").status_code == 302
    assert key_of(row) == ""


def test_a_key_sealed_under_another_secret_is_shown_as_such(
    site: Client, settings: Settings
) -> None:
    row = add(site, api_key=KEY)
    settings.SECRET_KEY = "another-secret-key-of-fifty-characters-0123456789-abc"
    with pytest.raises(SealBroken):
        key_of(row)
    site.force_login(User.objects.get())  # sessions end with the secret too
    page = site.get(f"{ENGINES}{row.pk}/change/").content.decode()
    assert "cannot be opened" in page
    assert change(site, row, api_key=KEY).status_code == 302
    assert key_of(row) == KEY


def test_seals_are_never_alike() -> None:
    assert seal("") == b""
    assert unseal(b"") == ""
    assert seal(KEY) != seal(KEY)
    assert unseal(seal(KEY)) == KEY


# --- the URL and the name ------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254",
        "http://2852039166",
        "http://[::ffff:a9fe:a9fe]",
        "http://[fe80::1]:8000",
        "http://0.0.0.0:8000",
        "http://user:password@10.0.0.3",
        "ftp://10.0.0.3",
        "http://10.0.0.3/?key=1",
        "10.0.0.3:8000",
        "http://10.0.0.3:8000/v1",
        "http://10.0.0.3:8000/v1/",
        "javascript:alert(1)",
        "http://" + "x" * 300,
        "",
    ],
)
def test_urls_that_are_refused(site: Client, address: str) -> None:
    response = site.post(f"{ENGINES}add/", form_for(address=address))
    assert list(form_errors(response)) == ["address"]
    assert not Upstream.objects.exists()
    assert record() == []


def test_a_name_is_judged_by_its_address(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_outbound, "look_up", lambda *_: ["169.254.169.254"])
    response = site.post(f"{ENGINES}add/", form_for(address="http://gpu:8000"))
    assert "refused" in form_errors(response)["address"][0]
    monkeypatch.setattr(engine_outbound, "look_up", lambda *_: ["172.17.0.2"])
    assert add(site, address="http://gpu:8000/").url == "http://gpu:8000"


def test_an_engine_can_be_disabled_though_its_name_is_gone(
    site: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_outbound, "look_up", lambda *_: ["172.17.0.2"])
    row = add(site, address="http://gpu:8000")

    def gone(*_: object) -> list[str]:
        raise OSError

    monkeypatch.setattr(engine_outbound, "look_up", gone)
    assert change(site, row, is_enabled=None).status_code == 302
    row.refresh_from_db()
    assert not row.is_enabled
    assert list(form_errors(change(site, row, address="http://gpu:8001"))) == ["address"]


@pytest.mark.parametrize("name", ["default", "Default", "GPU", "with space", "a/b", "x" * 51, ""])
def test_names_that_are_refused(site: Client, name: str) -> None:
    response = site.post(f"{ENGINES}add/", form_for(name=name))
    assert list(form_errors(response)) == ["name"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slots", "0"),
        ("slots", "1025"),
        ("weight", "0"),
        ("weight", "101"),
        ("priority", "-1"),
        ("slots", "many"),
    ],
)
def test_numbers_out_of_bounds(site: Client, field: str, value: str) -> None:
    response = site.post(f"{ENGINES}add/", form_for(**{field: value}))
    assert list(form_errors(response)) == [field]


def test_a_name_is_taken_once(site: Client) -> None:
    add(site)
    response = site.post(f"{ENGINES}add/", form_for(address="http://10.0.0.4"))
    assert list(form_errors(response)) == ["name"]


# --- what is done there --------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_engine_is_added_disabled_enabled_and_removed_without_a_restart(
    site: Client, as_alice: APIClient, stub: StubEngine, second: StubEngine
) -> None:
    def seen() -> list[tuple[str, str]]:
        listed = as_alice.get(STATE).json()["engines"]
        return [(engine["name"], engine["status"]) for engine in listed]

    assert seen() == [("default", "up")]
    row = add(site, name="second", address=second.url, api_key=second.api_key, priority="1")
    assert seen() == [("default", "up"), ("second", "up")]
    assert names(MODEL) == ["default", "second"]
    page = site.get(ENGINES).content.decode()
    assert re.search(r'field-state">up<', page)
    assert MODEL in page

    for action, names_after in (("disable", ["default"]), ("enable", ["default", "second"])):
        done = site.post(ENGINES, {"action": action, "_selected_action": [str(row.pk)]})
        assert done.status_code == 302
        engines.summary()
        assert names(MODEL) == names_after
    assert site.post(ENGINES, {"action": "enable", "_selected_action": [str(row.pk)]})
    assert change(site, row, is_enabled=None).status_code == 302
    assert seen() == [("default", "up")]
    assert re.search(r'field-state">disabled<', site.get(ENGINES).content.decode())
    assert site.post(f"{ENGINES}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Upstream.objects.exists()

    actor = User.objects.get(username="grace").id
    assert set(
        AuditEvent.objects.filter(action__startswith="engine").values_list("actor_id", flat=True)
    ) == {actor}
    changed = ("engine.changed", str(row.pk), {"fields": ["is_enabled"]})
    assert record() == [
        ("engine.added", str(row.pk), {"fields": ["api_key", "name", "priority", "url"]}),
        *(changed, changed, changed),  # enabling what is enabled is no change
        ("engine.removed", str(row.pk), {}),
    ]


def test_it_says_when_there_are_more_slots_than_threads_to_wait_in(
    site: Client, settings: Settings
) -> None:
    settings.WEB_THREADS, settings.QUEUE_LIMIT, settings.ENGINE_SLOTS = 110, 64, 4
    row = add(site, slots="10")
    assert "WEB_THREADS" not in site.get(ENGINES).content.decode()
    assert change(site, row, slots="11").status_code == 302
    assert "WEB_THREADS (110) lets one web process hold: 111" in site.get(ENGINES).content.decode()


def test_saving_without_a_change_leaves_no_record(site: Client) -> None:
    row = add(site)
    assert change(site, row).status_code == 302
    assert [action for action, _, _ in record()] == ["engine.added"]


def test_many_are_removed_at_once_each_on_record(site: Client) -> None:
    rows = [add(site, name=name) for name in ("one", "two")]
    data = {
        "action": "delete_selected",
        "_selected_action": [str(row.pk) for row in rows],
        "post": "yes",
    }
    assert site.post(ENGINES, data).status_code == 302
    assert not Upstream.objects.exists()
    assert [action for action, _, _ in record()].count("engine.removed") == 2


def test_a_dead_engine_is_seen_in_the_list(
    site: Client, stub: StubEngine, second: StubEngine
) -> None:
    second.stop()
    Upstream.objects.create(name="second", url=second.url)
    engines.roster.expire()
    page = site.get(ENGINES).content.decode()
    assert re.search(r'field-state">open \(engine_unavailable\)<', page)


@pytest.mark.django_db(transaction=True)
def test_aliases(site: Client, stub: StubEngine) -> None:
    form = {"alias": "gpt-4o", "model": MODEL, "is_enabled": "on"}
    assert site.post(f"{ALIASES}add/", form).status_code == 302
    row = ModelAlias.objects.get()
    assert [choice.model.id for choice in engines.choices("gpt-4o")] == [MODEL]
    assert [model.id for model in engines.catalogue()] == [MODEL, "gpt-4o"]
    changed = {**form, "alias": "gpt-5"}
    assert site.post(f"{ALIASES}{row.pk}/change/", changed).status_code == 302
    assert [model.id for model in engines.catalogue()] == [MODEL, "gpt-5"]
    own_name = {**form, "alias": MODEL}
    assert list(form_errors(site.post(f"{ALIASES}add/", own_name))) == ["alias"]
    taken = {**form, "alias": "gpt-5"}
    assert list(form_errors(site.post(f"{ALIASES}add/", taken))) == ["alias"]
    done = site.post(ALIASES, {"action": "disable", "_selected_action": [str(row.pk)]})
    assert done.status_code == 302
    assert [model.id for model in engines.catalogue()] == [MODEL]
    assert site.post(f"{ALIASES}{row.pk}/delete/", {"post": "yes"}).status_code == 302
    subject = str(row.pk)
    assert record() == [
        ("alias.added", subject, {"fields": ["alias", "model"]}),
        ("alias.changed", subject, {"fields": ["alias"]}),
        ("alias.changed", subject, {"fields": ["is_enabled"]}),
        ("alias.removed", subject, {}),
    ]


def test_an_alias_names_a_model_and_never_another_alias(site: Client, stub: StubEngine) -> None:
    def send(path: str, alias: str, model: str) -> dict[str, list[str]]:
        response = site.post(
            f"{ALIASES}{path}/", {"alias": alias, "model": model, "is_enabled": "on"}
        )
        return {} if response.status_code == 302 else form_errors(response)

    assert send("add", "gpt-4o", MODEL) == {}
    row = ModelAlias.objects.get()
    of_an_alias = {"model": [f"This is an alias. {RULE}"]}
    is_a_model = {"alias": [f"Another alias, gpt-4o, has this as its model. {RULE}"]}
    assert send("add", "gpt-5", "gpt-4o") == of_an_alias
    assert send("add", MODEL, "gpt-4o") == of_an_alias | is_a_model
    assert send("add", MODEL, "llama") == is_a_model
    ModelAlias.objects.update(is_enabled=False)  # could be enabled again
    assert send("add", "gpt-5", "gpt-4o") == of_an_alias
    assert send("add", MODEL, "llama") == is_a_model
    assert send("add", "gpt-5", MODEL) == {}
    still_is = {"alias": [f"Another alias, gpt-5, has this as its model. {RULE}"]}
    assert send(f"{row.pk}/change", MODEL, "llama") == still_is
    assert send(f"{row.pk}/change", "gpt-4o", "gpt-5") == of_an_alias
    assert send(f"{row.pk}/change", "gpt-4", MODEL) == {}
    assert send(f"{row.pk}/change", "gpt-4o", "gpt-4") == {}  # its own name, which it gives up


def test_disabling_undoes_nothing_that_another_operator_saved(
    site: Client, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = add(site, api_key=KEY)

    class AfterAnotherOne:
        on_commit = staticmethod(transaction.on_commit)

        def atomic(self) -> transaction.Atomic:
            Upstream.objects.update(url="http://10.0.0.4", sealed_api_key=seal("another"))
            return transaction.atomic()

    monkeypatch.setattr(engine_admin, "transaction", AfterAnotherOne())
    site.post(ENGINES, {"action": "disable", "_selected_action": [str(row.pk)]})
    assert key_of(row) == "another"
    assert (row.url, row.is_enabled) == ("http://10.0.0.4", False)


# --- who may -------------------------------------------------------------------------------


def test_staff_need_the_permission(alice: User) -> None:
    row = Upstream.objects.create(name="gpu", url="http://10.0.0.3")
    alice.is_staff = True
    alice.save(update_fields=["is_staff"])
    client = Client()
    client.force_login(alice)
    paths = (ENGINES, f"{ENGINES}add/", f"{ENGINES}{row.pk}/change/", ALIASES)
    assert [client.get(path).status_code for path in paths] == [403] * 4
    alice.user_permissions.add(Permission.objects.get(codename="view_upstream"))
    assert [client.get(path).status_code for path in paths] == [200, 403, 200, 403]
    assert change(client, row, slots="9").status_code == 403
    refused = client.post(ENGINES, {"action": "disable", "_selected_action": [str(row.pk)]})
    assert refused.status_code == 200  # such an action is not offered
    row.refresh_from_db()
    assert (row.slots, row.is_enabled) == (4, True)
    alice.user_permissions.add(Permission.objects.get(codename="change_upstream"))
    assert change(client, row, slots="9").status_code == 302
    assert record() == [("engine.changed", str(row.pk), {"fields": ["slots"]})]
