"""The version after this one: a copy of the code with one more migration."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.migrated import ROOT

TABLE, COLUMN = "consciousness_memory", "of_the_next_version"

_MIGRATION = """
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consciousness", "{last}")]
    operations = [
        migrations.AddField(
            "memory", "{column}", models.CharField(max_length=10, null=True, blank=True)
        )
    ]
"""
_FIELD = """
from django.db import models

Memory.add_to_class("{column}", models.CharField(max_length=10, null=True, blank=True))
"""


def make_next_version(folder: Path) -> Path:
    """Everything that is under version control, with a column that has no default and may be empty:
    the old code does not know of it, the new one reads and writes it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    )
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file() and not source.is_symlink():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    migrations = folder / "consciousness/migrations"
    last = max(path.stem for path in migrations.glob("0*.py"))
    text = _MIGRATION.format(last=last, column=COLUMN)
    (migrations / "9000_of_the_next_version.py").write_text(text)
    with (folder / "consciousness/models/memory.py").open("a") as module:
        module.write(_FIELD.format(column=COLUMN))
    return folder
