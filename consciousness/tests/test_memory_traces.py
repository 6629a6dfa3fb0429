"""What is forgotten is gone: exported while it is there, and nowhere to be found afterwards.

In the files of a real SQLite database, whichever one the suite runs on: FTS5 keeps the words of
deleted rows in its own tables until it merges them.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
from django.db import connection
from django.http import FileResponse
from rest_framework.test import APIClient

from accounts.models import User
from conftest import PASSWORD
from consciousness.models import Memory
from consciousness.tests.remembering import DOG, MEMORIES, note
from tests import environment as test_settings

ROOT = Path(__file__).parents[2]
ME = "/api/v1/users/me"
# Words that no stemming shortens, each with a beginning of its own: FTS5 leaves out what a word has
# in common with the one before it.
DELETED, REVISED, ERASED, CASCADED, KEPT = (
    *("qvxzdeletedqk", "wjqxrevisedqk", "xkqverasedqk"),
    *("yzqxcascadedqk", "zqvxkeptqk"),
)
PRELUDE = """
from django.core.management import call_command
from accounts.models import User
from consciousness import memory
from consciousness.models import Memory
def find(word):
    return Memory.objects.get(text__contains=word)
def recalled(user, text):
    return [fact.text for fact in memory.recall(user=user, text=text)]
"""
WRITE = f"""{PRELUDE}
call_command("migrate", verbosity=0)
for name in ("ann", "ben", "cem"):
    User.objects.create_user(name, name + "@example.org", {PASSWORD!r})
ann, ben, cem = User.objects.order_by("username")
for user, word in ((ann, "{DELETED}"), (ann, "{REVISED}"), (ann, "{KEPT}"), (ben, "{ERASED}"),
                   (cem, "{CASCADED}")):
    for number in range(30):
        memory.remember(user=user, text=f"filler {{number}} of {{user.username}}, as all have")
    memory.remember(user=user, text=f"the word is {{word}}")
"""
CHANGE = f"""{PRELUDE}
memory.forget(memory=find("{DELETED}"))
memory.revise(memory=find("{REVISED}"), text="the word is another")
"""
# Rows that go with their user leave their words until the next time that any are forgotten.
LOOK_AND_CASCADE = f"""{PRELUDE}
ann = User.objects.get(username="ann")
assert recalled(ann, "{KEPT}") == ["the word is {KEPT}"]
assert recalled(ann, "another") == ["the word is another"]
User.objects.get(username="cem").delete()
"""


class Database:
    """A SQLite database of its own, changed by `manage.py` alone."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "db.sqlite3"
        self._environment = {
            **os.environ,
            **test_settings.test_environment(str(directory)),
            "DJANGO_SETTINGS_MODULE": "sovereigncore.settings",
            "DATABASE_URL": "",
        }

    def manage(self, *arguments: str) -> None:
        command = [sys.executable, "manage.py", *arguments]
        subprocess.run(
            command, cwd=ROOT, env=self._environment, check=True, stdout=subprocess.DEVNULL
        )

    def places_of(self, word: str) -> int:
        """How often the files have the word, once the journal is written back into the database."""
        with closing(sqlite3.connect(self._path)) as database:
            assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        files = self._path.parent.glob(f"{self._path.name}*")
        return sum(file.read_bytes().lower().count(word.encode()) for file in files)

    def is_indexed(self, word: str) -> bool:
        query = "SELECT block FROM consciousness_memory_search_data"
        with closing(sqlite3.connect(self._path)) as database:
            return any(word.encode() in block for (block,) in database.execute(query))


def test_no_file_keeps_a_word_of_what_was_forgotten(tmp_path: Path) -> None:
    database = Database(tmp_path)
    database.manage("shell", "-c", WRITE)
    for word in (DELETED, REVISED, ERASED, CASCADED, KEPT):
        assert database.places_of(word) >= 2, "the fact, and its word in the index"
        assert database.is_indexed(word)
    database.manage("shell", "-c", CHANGE)
    assert [database.places_of(word) for word in (DELETED, REVISED)] == [0, 0]
    database.manage("erase_user", "ben", "--yes")
    assert database.places_of(ERASED) == 0
    assert database.is_indexed(KEPT)
    database.manage("shell", "-c", LOOK_AND_CASCADE)
    database.manage("erase_user", "ann", "--yes")
    assert [database.places_of(word) for word in (CASCADED, KEPT, "filler")] == [0, 0, 0]


# --- over HTTP, on the suite's database


def exported(client: APIClient) -> list[dict[str, str]]:
    response: object = client.get(f"{ME}/export")
    assert isinstance(response, FileResponse)
    content = b"".join(cast("Iterator[bytes]", response.streaming_content))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        loaded: list[dict[str, str]] = json.loads(archive.read("memories.json"))
        return loaded


def test_facts_are_exported_to_their_owner_alone(as_alice: APIClient, as_bob: APIClient) -> None:
    facts = [as_alice.post(MEMORIES, {"text": text}).json() for text in (DOG, "another")]
    rows = exported(as_alice)
    assert [(row["id"], row["text"]) for row in rows] == [
        (fact["id"], fact["text"]) for fact in facts
    ]
    assert set(rows[0]) == {"id", "text", "created_at", "updated_at"}
    assert exported(as_bob) == []


@pytest.mark.django_db(transaction=True)
def test_facts_are_erased_with_the_account(as_alice: APIClient, alice: User, bob: User) -> None:
    note(alice, [DOG, "another"])
    note(bob, [DOG])
    assert as_alice.delete(ME, {"current_password": PASSWORD}).status_code == 204
    assert [fact.user_id for fact in Memory.objects.all()] == [bob.pk]
    kept = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            if table.startswith("consciousness_memory"):
                cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - our own tables
                kept += [repr(row) for row in cursor.fetchall()]
    assert any("Rex" in row for row in kept)
    assert not any("another" in row or str(alice.pk) in row or alice.pk.hex in row for row in kept)
