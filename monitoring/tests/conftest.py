"""Fixtures of the audit trail's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def audit_dir(tmp_path: Path, settings: Settings) -> Path:
    """Each test has its own: checkpoints outlive the database that a test leaves empty."""
    settings.AUDIT_DIR = tmp_path / "audit"
    return Path(settings.AUDIT_DIR)
