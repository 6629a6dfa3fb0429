"""Facts are noted: out of a prompt, once, up to a limit, whoever else does so at the moment."""

from __future__ import annotations

import time
import unicodedata
import uuid

import pytest
from django.contrib import admin
from pytest_django import Settings

from accounts.models import User
from consciousness import memory
from consciousness.models import Memory
from consciousness.owners import OwnerGone
from consciousness.tests.remembering import recalled
from tests.parallel import in_parallel

DOG = "my dog is called Rex"


@pytest.mark.parametrize(
    "prompt",
    [
        "Remember that my dog is called Rex.",
        "remember that my dog is called Rex",
        "REMEMBER THAT my dog is called Rex!",
        "  Remember   that\tmy dog is called Rex . ",
        "Please remember that my dog is called Rex",
        "please, remember that my dog is called Rex...",
        "PLEASE REMEMBER, that my dog is called Rex\n",
        "Remember, please, that my dog is called Rex.",
        "Remember that my dog is called Rex, please.",
        "Remember that: my dog is called Rex;",
        "- Remember that my dog\nis called\r\nRex.",
        '"Remember that my dog is called Rex."',
        "\u201cRemember that my dog is called Rex.\u201d",
        "> **Remember that my dog is called Rex…",
    ],
)
def test_the_fact_in_a_prompt(prompt: str) -> None:
    assert memory.fact_in(prompt) == DOG


@pytest.mark.parametrize(
    ("prompt", "fact"),
    [
        ('Remember that "Rex" is short for "Reginald".', '"Rex" is short for "Reginald"'),
        ("Remember that .NET and C++ are my trade", ".NET and C++ are my trade"),
        ("Remember that I (Ann) live in Bern (CH).", "I (Ann) live in Bern (CH)"),
        ("Remember that I always say please.", "I always say please"),
        ("Remember that that is that.", "that is that"),
        ("Remember that 5", "5"),
        ("Remember that " + "x" * 1000, "x" * 1000),
        ("Remember that " + "e\u0301" * 1000, "\u00e9" * 1000),
    ],
)
def test_a_fact_keeps_what_it_says(prompt: str, fact: str) -> None:
    assert memory.fact_in(prompt) == fact


@pytest.mark.parametrize(
    "prompt",
    [
        *("", " ", "Remember", "remember that", "Remember that.", 'Remember that ".', "that"),
        *("Remember that's my dog", "Remember thatcher", "I remember that my dog is called Rex"),
        *("Do you remember that my dog is called Rex?", "Can you remember that I smoke?"),
        *("Remember! That dog barks.", "Remember my dog", "Remembering that my dog barks"),
        *("What is my dog called?", "Rememberthat my dog", "Don't remember that my dog barks"),
        "Remember that " + "x" * 1001,
        "Remember that " + "\u0958" * 501,  # two letters each in the form that is kept
    ],
)
def test_other_prompts_have_none(prompt: str) -> None:
    assert memory.fact_in(prompt) is None


@pytest.mark.parametrize(
    "piece",
    [
        *("please ", "please,", "remember ", "remember,", "remember that ", "that "),
        *(" ", "!", ", ", "\n"),
    ],
)
def test_no_prompt_takes_long(piece: str) -> None:
    """Twenty times the longest one; with a pattern that backtracks it would be minutes."""
    for prefix in ("", "please", "remember", "please remember", "remember that"):
        began_s = time.perf_counter()
        memory.fact_in(prefix + piece * (200_000 // len(piece)))
        assert time.perf_counter() - began_s < 10


# --- noting


def test_a_fact_is_noted_and_recalled(alice: User) -> None:
    noted = memory.remember(user=alice, text=f"  {DOG} ")
    assert (noted.text, noted.user_id) == (DOG, alice.pk)
    assert recalled(alice, "What is my dog called?") == [DOG]


def test_the_same_fact_twice_is_one_that_moves_up(alice: User) -> None:
    first = memory.remember(user=alice, text=DOG)
    memory.remember(user=alice, text="another")
    again = memory.remember(user=alice, text="My  DOG is\ncalled Rex")
    assert again.pk == first.pk
    assert again.text == DOG, "as it was said first"
    kept = Memory.objects.get(pk=first.pk)
    assert kept.created_at == first.created_at
    assert kept.updated_at == again.updated_at > first.updated_at
    assert Memory.objects.for_user(alice).latest("updated_at") == kept
    assert Memory.objects.count() == 2


def test_the_same_fact_of_another_is_another(alice: User, bob: User) -> None:
    facts = {memory.remember(user=user, text=DOG).pk for user in (alice, bob)}
    assert len(facts) == 2


def test_however_it_was_typed(alice: User) -> None:
    for form in ("NFD", "NFC"):
        memory.remember(user=alice, text=unicodedata.normalize(form, "Zoë lives in Zürich"))
    assert Memory.objects.get().text == unicodedata.normalize("NFC", "Zoë lives in Zürich")


def test_there_is_a_limit_for_each(alice: User, bob: User, settings: Settings) -> None:
    settings.MEMORY_LIMIT = 2
    for text in ("one", "two"):
        memory.remember(user=alice, text=text)
    with pytest.raises(memory.MemoryFull):
        memory.remember(user=alice, text="three")
    assert set(Memory.objects.values_list("text", flat=True)) == {"one", "two"}
    memory.remember(user=alice, text="ONE")
    memory.remember(user=bob, text="three")
    memory.forget(memory=Memory.objects.get(text="two"))
    memory.remember(user=alice, text="three")


def test_under_a_limit_that_was_lowered_what_is_known_can_be_said_again(
    alice: User, settings: Settings
) -> None:
    for text in ("one", "two", "three"):
        memory.remember(user=alice, text=text)
    settings.MEMORY_LIMIT = 1
    assert memory.remember(user=alice, text="one").text == "one"
    with pytest.raises(memory.MemoryFull):
        memory.remember(user=alice, text="four")


def test_nothing_is_noted_where_memory_is_off(alice: User, settings: Settings) -> None:
    settings.MEMORY_LIMIT = 0
    with pytest.raises(memory.MemoryOff):
        memory.remember(user=alice, text=DOG)
    assert not Memory.objects.exists()


@pytest.mark.parametrize("text", ["", "  \n", "?!", "x" * 1001, "a" + "\u0344" * 600])
def test_what_is_no_fact(alice: User, text: str) -> None:
    """The last one is too long in the form that is kept."""
    with pytest.raises(memory.FactUnusable) as refusal:
        memory.remember(user=alice, text=text)
    assert refusal.value.errors is not None
    assert list(refusal.value.errors) == ["text"]


def test_nothing_is_noted_for_whom_there_is_no_account(db: None) -> None:
    with pytest.raises(OwnerGone):
        memory.remember(user=User(pk=uuid.uuid4()), text=DOG)


# --- changing


def test_a_fact_is_changed(alice: User) -> None:
    noted = memory.remember(user=alice, text=DOG)
    changed = memory.revise(memory=noted, text="my dog is called Max")
    kept = Memory.objects.get()
    assert (kept.text, kept.updated_at) == (changed.text, changed.updated_at)
    assert kept.updated_at > kept.created_at
    assert recalled(alice, "Rex") == []
    assert recalled(alice, "Max") == ["my dog is called Max"]
    assert memory.remember(user=alice, text="MY dog is called max").pk == noted.pk


def test_a_fact_cannot_become_another_one(alice: User) -> None:
    memory.remember(user=alice, text=DOG)
    other = memory.remember(user=alice, text="my cat is called Tom")
    with pytest.raises(memory.MemoryKnown):
        memory.revise(memory=other, text=DOG.upper())
    assert recalled(alice, "cat dog") == ["my cat is called Tom", DOG]


def test_a_fact_that_is_gone_meanwhile(alice: User) -> None:
    noted = memory.remember(user=alice, text=DOG)
    memory.forget(memory=Memory.objects.get())
    with pytest.raises(memory.MemoryGone):
        memory.revise(memory=noted, text="other")
    assert not Memory.objects.exists()


def test_facts_are_not_in_the_admin_site() -> None:
    assert not admin.site.is_registered(Memory)


# --- races


@pytest.mark.django_db(transaction=True)
def test_of_many_who_say_the_same_at_once_one_is_noted(alice: User) -> None:
    noted = in_parallel(12, lambda _: memory.remember(user=alice, text=DOG).pk)
    assert len(set(noted)) == 1
    assert Memory.objects.get().pk == noted[0]


@pytest.mark.django_db(transaction=True)
def test_many_at_once_do_not_pass_the_limit(alice: User, settings: Settings) -> None:
    settings.MEMORY_LIMIT = 1

    def say(number: int) -> bool:
        try:
            memory.remember(user=alice, text=f"fact {number}")
        except memory.MemoryFull:
            return False
        return True

    for _ in range(10):
        assert sum(in_parallel(12, say)) == 1
        memory.forget(memory=Memory.objects.get())


@pytest.mark.django_db(transaction=True)
def test_of_many_that_become_the_same_at_once_one_does(alice: User) -> None:
    facts = [memory.remember(user=alice, text=f"fact {number}") for number in range(8)]

    def change(number: int) -> bool:
        try:
            memory.revise(memory=facts[number], text="the harp")
        except memory.MemoryKnown:
            return False
        return True

    assert sum(in_parallel(8, change)) == 1
    assert Memory.objects.filter(text="the harp").count() == 1
    assert len(recalled(alice, "harp")) == 1
