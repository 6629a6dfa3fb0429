"""Fixtures of what is done to whole databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from monitoring.tests.own_database import KEY, new_database, using


@pytest.fixture
def own_database(transactional_db: None, tmp_path: Path, settings: Settings) -> Iterator[str]:
    """The name of a database that is the default one during the test, with a DATA_DIR, a
    BACKUP_DIR and a BACKUP_KEY."""
    settings.DATA_DIR = tmp_path / "data"
    settings.DATA_DIR.mkdir()
    settings.BACKUP_DIR = settings.DATA_DIR / "backups"
    settings.BACKUP_KEY = KEY
    with new_database(settings.DATA_DIR) as name, using(name):
        yield name
