"""Facts are found by what they say, whatever is asked and however, with either database."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from accounts.models import User
from consciousness import memory, memory_index
from consciousness.models import Memory
from consciousness.tests.remembering import DOG, FACTS, found, note, recalled


@pytest.fixture
def rich(alice: User) -> User:
    """Alice with fifty facts and the dog."""
    note(alice, [*FACTS[:25], DOG, *FACTS[25:]])
    return alice


@pytest.mark.parametrize(
    ("question", "fact"),
    [
        ("What is my dog called?", DOG),
        ("what's the name of my DOG", DOG),
        ("How are dogs called?", DOG),
        ("Where do I live?", "I live in Zurich with my wife"),
        ("when was I born", "I was born in Bern in 1984"),
        ("Which hotel are we staying at?", "We stay at the hotel Mirador"),
        ("Am I allergic to anything?", "I am allergic to peanuts"),
        ("Who is my manager?", "My manager is Mrs Okafor"),
        ("What languages am I learning?", "I am learning Portuguese"),
        ("Where is the spare key?", "The spare key hangs behind the boiler"),
        ("Plan my Sunday run, please.", "I run ten kilometres on Sundays"),
    ],
)
def test_the_fact_that_answers_comes_first(rich: User, question: str, fact: str) -> None:
    assert recalled(rich, question)[0] == fact


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "Write a haiku",
        "Who am I and what do you do for me?",
        "the of and is",
        "",
        "   ",
        "?!…",
        "👍🏽 🐶",
    ],
)
def test_nothing_is_recalled_where_nothing_is_relevant(rich: User, question: str) -> None:
    assert recalled(rich, question) == []


def test_a_fact_with_more_of_the_words_comes_before_one_with_fewer(alice: User) -> None:
    note(alice, ["the kayak", "the kayak and the piano", "the piano", "the kayak and the harp"])
    assert found(alice, "piano kayak")[0] == "the kayak and the piano"
    assert set(found(alice, "piano kayak")) == set(found(alice, "kayak")) | {"the piano"}


def test_a_word_in_capitals_too_is_still_one_word(alice: User) -> None:
    note(alice, ["the kayak", "the piano", "the piano and the harp"])
    assert found(alice, "Kayak kayak KAYAK piano harp")[0] == "the piano and the harp"


def test_a_rare_word_says_more_than_a_common_one(alice: User) -> None:
    note(alice, [*(f"the appointment number {n}" for n in range(20)), "the harp"])
    note(alice, [f"another appointment, number {n}" for n in range(20)])
    assert found(alice, "appointment harp")[0] == "the harp"


def test_what_others_note_does_not_move_ones_own_facts(alice: User, bob: User) -> None:
    """Their order would tell which words are common with everybody else."""
    note(alice, ["the piano", "the kayak"])
    Memory.objects.filter(text="the kayak").update(updated_at="2090-01-01T00:00:00Z")
    before = found(alice, "piano kayak")
    assert before == ["the kayak", "the piano"], "as rare as each other: the newer one"
    note(bob, [f"a kayak, number {n}" for n in range(50)])
    assert found(alice, "piano kayak") == before


@pytest.mark.parametrize(
    ("fact", "other", "word"),
    [
        ("Моя собака Рекс", "Я живу в Берне", "собака"),
        ("내 개 이름은 렉스", "나는 베른에 산다", "개"),
        ("मेरे कुत्ते का नाम रेक्स है", "मैं बर्न में रहता हूँ", "कुत्ते"),
        ("मैं बर्न में रहता हूँ", "मेरे कुत्ते का नाम रेक्स है", "में"),
        ("আমার কুকুরের নাম রেক্স", "আমি বার্নে থাকি", "কুকুরের"),
        ("என் நாயின் பெயர் ரெக்ஸ்", "நான் பெர்னில் வசிக்கிறேன்", "நாயின்"),
        ("Ọjọ́ ìbí mi jẹ́ Sátidé", "Ilé mi tóbi", "Ọjọ́"),
        ("הַכֶּלֶב שֶׁלִי רקס", "אני גר בברן", "הַכֶּלֶב"),
        ("اسم كَلْبي ركس", "أسكن في برن", "كَلْبي"),
        ("Evim İstanbul'da", "Kedim siyah", "İstanbul"),
        ("ΝΙΚΟΣ είναι", "σπίτι μου", "ΝΙΚΟΣ"),
    ],
)
def test_a_word_of_any_script_finds_itself(alice: User, fact: str, other: str, word: str) -> None:
    note(alice, [fact, other])
    assert found(alice, word) == [fact]


@pytest.mark.parametrize(
    ("fact", "part"),
    [("我的狗叫雷克斯", "雷克斯"), ("私の犬の名前はレックスです", "レックス")],
)
def test_without_spaces_a_text_is_one_word(alice: User, fact: str, part: str) -> None:
    memory.remember(user=alice, text=fact)
    assert not memory.search(user=alice, text=part)
    assert memory.search(user=alice, text=fact)


def test_accents_count_on_postgresql_alone(alice: User) -> None:
    memory.remember(user=alice, text="The café is closed")
    assert memory.search(user=alice, text="café")
    is_found = bool(memory.search(user=alice, text="cafe"))
    assert is_found == (connection.vendor == "sqlite")


def test_accents_do_not_depend_on_how_they_are_typed(alice: User) -> None:
    memory.remember(user=alice, text=unicodedata.normalize("NFD", "Née Müller, from Zürich"))
    for form in ("NFC", "NFD", "NFKC"):
        question = unicodedata.normalize(form, "Is Müller from ZÜRICH?")
        assert len(found(alice, question)) == 1


@pytest.mark.parametrize(
    ("fact", "asked"),
    [
        ("write to ann.lee@example.org", ["ann", "lee", "example", "org", "ann.lee@example.org"]),
        ("see https://wiki.example.org/how-to?page=7", ["wiki", "page-7", "page 7"]),
        ("the file is /srv/backup/nightly.tar", ["backup", "nightly"]),
        ("<secret>flamingo</secret>", ["flamingo", "secret"]),
        ("snake_case and kebab-case", ["snake", "kebab"]),
        ("the dog's bowl and the cat\u2019s", ["dog", "cat", "dog\u2019s", "cat's"]),
        ("flight LX318 at 17:45", ["LX318", "17:45"]),
        ("swim—run…rest🐶walk", ["swim", "run", "rest", "walk"]),
        ("1\ufe0f\u20e3swim ❤\ufe0frun", ["1", "1\ufe0f\u20e3", "swim", "run"]),
        ("☎\ufe0ecall \u2229\ufe00union", ["call", "union"]),
        ("葛\U000e0100城 駅", ["葛", "葛\U000e0100城", "駅"]),
        ("র\u200d\u09cdযাম কম", ["র\u200d\u09cdযাম", "কম"]),
        ("\u09cdযাম", ["\u09cdযাম"]),
        ("e\ufe20a\ufe21 tie", ["e\ufe20a\ufe21", "tie"]),
        ("घर बड़ा है।", ["है", "है।"]),
        ("اسمي علي، وأسكن في برن؟", ["علي", "برن"]),
        ("שמי דוד־כהן", ["דוד", "כהן"]),
    ],
)
def test_words_are_found_between_all_punctuation(alice: User, fact: str, asked: list[str]) -> None:
    note(alice, [fact])
    assert {question: found(alice, question) for question in asked} == {
        question: [fact] for question in asked
    }


CREATURES = ["a dog", "a cat", "dogma", "a near miss", "owner and text", "zebra", "42"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('dog" OR "cat', {"a dog", "a cat"}),
        ("dog*", {"a dog"}),
        ("do*", set()),
        ("*", set()),
        ("^dog", {"a dog"}),
        ("-dog", {"a dog"}),
        ("dog NOT cat", {"a dog", "a cat"}),
        ("dog AND zebra", {"a dog", "zebra"}),
        ("NEAR(dog cat, 5)", {"a dog", "a cat", "a near miss"}),
        ("owner : dog", {"a dog", "owner and text"}),
        ('{owner text} : "dog"', {"a dog", "owner and text"}),
        ("rowid:1 consciousness_memory_search", set()),
        ("dog'); DROP TABLE consciousness_memory; --", {"a dog"}),
        ("'dog' | 'cat' & !'zebra' <-> ( )", {"a dog", "a cat", "zebra"}),
        ("dog:*", {"a dog"}),
        ("\\dog\\", {"a dog"}),
        ("%s %(user)s {shared} dog", {"a dog"}),
        ('"', set()),
        ("'''''", set()),
        ("(((((", set()),
        ("dog\x00cat", {"a dog", "a cat"}),
        ("\ud800dog\udfff", {"a dog"}),
        ("dog\u200dcat 👩‍👧 dog", {"a dog", "a cat"}),
        ("🐶dog🐶", {"a dog"}),
        ("\uff44\uff4f\uff47", set()),
        ("dog " * 2500, {"a dog"}),
        ("x" * 9_996 + " dog", {"a dog"}),
        ('"' * 5000 + "(" * 4996 + "dog", {"a dog"}),
        (" ".join(f"word{n}" for n in range(1500)) + " dog", {"a dog"}),
        ("dog " + " ".join(f"word{n}" for n in range(1500)), {"a dog"}),
        ("42", {"42"}),
        ("-42", {"42"}),
        ("x\u0301\u0302 \u0301", set()),
        # Letters that are younger than SQLite's tables of them.
        ("\U00010570\U00010571", set()),
        ("\U00010570 dog", {"a dog"}),
    ],
)
def test_what_is_asked_is_never_syntax(alice: User, text: str, expected: set[str]) -> None:
    note(alice, CREATURES)
    assert set(found(alice, text)) == expected


def test_a_recall_is_one_query_and_none_without_words(rich: User) -> None:
    for text, queries in (("What is my dog called?", 1), ("dog " * 2500, 1), ("What is it?", 0)):
        with CaptureQueriesContext(connection) as captured:
            memory.recall(user=rich, text=text)
        assert len(captured) == queries


def test_a_recall_is_bounded_in_number(alice: User) -> None:
    note(alice, [f"dog number {n}" for n in range(20)])
    assert len(recalled(alice, "dog")) == 5
    assert len(memory.recall(user=alice, text="dog", at_most=2)) == 2
    assert len(memory.recall(user=alice, text="dog", at_most=50)) == 5
    assert len(found(alice, "dog")) == 20


def test_a_recall_is_bounded_in_length_and_what_fits_comes_along(alice: User) -> None:
    words = [f"dog dog{n} " for n in range(3)]
    long = [(word * 200)[:990] for word in words]
    note(alice, [*long, "a small dog"])
    facts = recalled(alice, "dog dog0 dog1 dog2")
    assert len(facts) == 3
    assert facts[-1] == "a small dog"
    assert sum(map(len, facts)) <= 2000


def test_nothing_is_recalled_where_memory_is_off(rich: User, settings: Settings) -> None:
    settings.MEMORY_LIMIT = 0
    with CaptureQueriesContext(connection) as captured:
        assert recalled(rich, "What is my dog called?") == []
    assert len(captured) == 0


# --- the index


def test_the_index_follows_every_change(alice: User, bob: User) -> None:
    """Three hundred changes by the ORM in all its ways, against a list of our own."""
    chance = random.Random(5)
    words = ["ash", "birch", "cedar", "elm", "fir", "hazel", "maple", "oak", "pine", "rowan"]
    kept: dict[Any, str] = {}
    for _ in range(300):
        text = " ".join(chance.sample(words, 3)) + f" {chance.random()}"
        change = chance.choice([*["note"] * 5, "save", "update", "delete", "delete many"])
        known = chance.choice(list(kept)) if kept else None
        if change == "note" or known is None:
            fact = Memory.objects.create(user=chance.choice([alice, bob]), text=text)
            kept[fact.pk] = text
        elif change == "save":
            fact = Memory.objects.get(pk=known)
            fact.text = kept[known] = text
            fact.save()
        elif change == "update":
            kept[known] = f"{kept[known]} tall"
            fact = Memory.objects.get(pk=known)
            Memory.objects.filter(pk=known).update(text=kept[known])
        elif change == "delete":
            Memory.objects.get(pk=known).delete()
            del kept[known]
        else:
            gone = chance.sample(list(kept), min(3, len(kept)))
            Memory.objects.filter(pk__in=gone).delete()
            kept = {pk: text for pk, text in kept.items() if pk not in gone}
        if chance.random() < 0.1:
            memory_index.forget_words()
    assert len(kept) > 20
    for word in [*words, "tall"]:
        rows = found(alice, word) + found(bob, word)
        assert sorted(rows) == sorted(text for text in kept.values() if word in text.split())


def test_the_index_is_made_of_the_facts_that_are_there(rich: User) -> None:
    connection.check_constraints()  # PostgreSQL changes no table that has checks to make
    memory_index.drop(connection)
    Memory.objects.filter(text=FACTS[0]).delete()
    memory.remember(user=rich, text="My hamster is called Flash")
    connection.check_constraints()
    memory_index.create(connection)
    assert recalled(rich, "What is my dog called?")[0] == DOG
    assert recalled(rich, "hamster") == ["My hamster is called Flash"]
    assert recalled(rich, "cat") == []
    memory.remember(user=rich, text="My parrot is called Ada")
    assert recalled(rich, "parrot") == ["My parrot is called Ada"]
