"""`.env` as the launcher writes it: private, whole, never overwritten, accepted by the settings."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.write_env import write_env
from tests.launcher import ROOT, clean_environment

pytestmark = pytest.mark.once


def test_env_is_written_privately_and_the_settings_accept_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / ".env"
    assert write_env(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    environment = clean_environment(tmp_path, ENV_FILE=str(path))
    shown = "import sovereigncore.settings as s; print(s.DEBUG, s.API_DOCS, s.REGISTRATION_MODE)"
    done = subprocess.run(
        [sys.executable, "-c", shown],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["False", "True", "open"], done.stderr


def test_env_that_is_there_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("SECRET_KEY=mine\n")
    assert not write_env(path)
    assert path.read_text() == "SECRET_KEY=mine\n"


def test_of_many_writers_of_env_one_wins(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(lambda _: write_env(path), range(8)))
    assert written.count(True) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_every_env_has_secrets_of_its_own(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        write_env(tmp_path / name)
        texts.append((tmp_path / name).read_text())
    secrets = [set(re.findall(r"[0-9a-f]{40,}", text)) for text in texts]
    assert [len(found) for found in secrets] == [5, 5]
    assert secrets[0].isdisjoint(secrets[1])
