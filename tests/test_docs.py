"""Documentation that can be checked: what exists is documented, and what is documented exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.apps import apps
from django.core.management import get_commands
from prometheus_client import REGISTRY

import monitoring.metrics  # noqa: F401 - registers the metrics
from monitoring import jobs

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parent.parent
PREFIXES = "(?:sovereigncore|django_db|django_cache)_"
APPS = ("accounts", "consciousness", "monitoring")


@pytest.mark.django_db
def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    documented = set(re.findall(rf"^\| `({PREFIXES}\w+)`", page, flags=re.MULTILINE))
    families = list(REGISTRY.collect())
    (up,) = (family for family in families if family.name == "sovereigncore_stored_metrics_up")
    assert {sample.labels["reader"] for sample in up.samples if not sample.value} == set()
    existing = {
        metric.name + ("_total" if metric.type == "counter" else "")
        for metric in families
        if re.match(PREFIXES, metric.name)
    }
    assert documented == existing


def test_every_table_is_on_the_page_that_says_what_bounds_it() -> None:
    page = (ROOT / "docs/reference/retention.md").read_text()
    first_cells = re.findall(r"^\| (`[^|]+`) \|.+\|.+\|.*\|.*\|$", page, flags=re.MULTILINE)
    documented = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    tables = {model._meta.db_table for model in apps.get_models(include_auto_created=True)}
    assert documented == tables | {"django_migrations"}


def test_every_job_is_on_that_page() -> None:
    page = (ROOT / "docs/reference/retention.md").read_text()
    named = set(re.findall(r"`((?:send|flush|delete|forget|settle|seal|archive)_\w+)`", page))
    assert {job.name for job in jobs.all_jobs()} <= named


def test_every_command_is_documented_and_has_a_test() -> None:
    ours = {name for name, app in get_commands().items() if app in APPS}
    page = (ROOT / "docs/reference/commands.md").read_text()
    documented = set(re.findall(r"^\| `manage\.py ([a-z_]+)", page, flags=re.MULTILINE))
    assert documented == ours
    tests = "\n".join(path.read_text() for path in ROOT.glob("*/tests/test_*.py"))
    assert {name for name in ours if f'"{name}"' not in tests} == set()


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


def test_make_targets_that_the_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        named = set(
            re.findall(r"^\s*(?:[A-Z_]+=\S+ )*make ([a-z-]+)", page.read_text(), re.MULTILINE)
        )
        assert named
        assert named <= targets


def test_every_test_that_the_pages_name_exists() -> None:
    """And all ten of OWASP's risks have some."""
    named = [
        (page.name, path, test)
        for page in ROOT.glob("docs/**/*.md")
        for path, test in re.findall(r"`([\w/]+\.py)::(\w+)`", page.read_text())
    ]
    missing = [
        f"{page}: {path}::{test}"
        for page, path, test in named
        if not re.search(rf"^\s*def {test}\(", (ROOT / path).read_text(), flags=re.MULTILINE)
    ]
    assert missing == []
    risks = re.split(r"^## ", (ROOT / "docs/explanation/owasp.md").read_text(), flags=re.MULTILINE)
    assert [risk.split()[0] for risk in risks[1:]] == [f"API{number}" for number in range(1, 11)]
    assert all("::" in risk for risk in risks[1:])


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = {str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")}
    assert pages - set(re.findall(r"\]\(([^)#]+)", readme)) == set()
