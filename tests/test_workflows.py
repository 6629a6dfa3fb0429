"""`.github/`: what runs in CI has few rights, is pinned, and is what the guides say of it.

`make lint` asks actionlint, zizmor and the schemas.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.migrated import ROOT

pytestmark = pytest.mark.once

_WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
_LOADED = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in _WORKFLOWS}
_JOBS = [
    pytest.param(job, id=f"{name}:{key}")
    for name, workflow in _LOADED.items()
    for key, job in workflow["jobs"].items()
]
# What a job may ask for beyond reading, and that deploying alone may.
_WRITES = {"security-events", "packages", "id-token", "attestations"}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", _WORKFLOWS, ids=lambda path: path.name)
def test_an_action_is_pinned_by_its_commit_and_names_its_version(path: Path) -> None:
    uses = re.findall(r"^\s+(?:- )?uses: (.+)$", _text(path), flags=re.MULTILINE)
    assert uses
    for used in uses:
        if not used.startswith("$/.github/workflows/"):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v?\d+\.\d+\.\d+", used), used


def test_an_action_is_the_same_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for path in _WORKFLOWS:
        for action, commit in re.findall(
            r"uses: ([\w.-]+/[\w.-]+)[\w./-]*@(.+)$", _text(path), re.MULTILINE
        ):
            pins.setdefault(action, set()).add(commit)
    assert {action: found for action, found in pins.items() if len(found) != 1} == {}


@pytest.mark.parametrize("name", sorted(_LOADED))
def test_a_workflow_has_no_rights_of_its_own(name: str) -> None:
    assert _LOADED[name]["permissions"] == {}


@pytest.mark.parametrize("job", _JOBS)
def test_a_job_names_its_rights_and_how_long_it_may_take(job: dict[str, Any]) -> None:
    for right, extent in job["permissions"].items():
        assert extent == "read" or right in _WRITES, right
    if "uses" in job:  # another workflow, which says so itself
        return
    assert job["timeout-minutes"] <= 120
    for step in job["steps"]:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
        # What others wrote, such as a branch's name, would be code there.
        assert "${{" not in step.get("run", "")


def test_nothing_of_a_strangers_runs_with_our_rights() -> None:
    for workflow in _LOADED.values():
        triggers = workflow[True]  # YAML 1.1 takes `on` for a truth
        assert {"pull_request_target", "workflow_run", "issue_comment"}.isdisjoint(triggers)


def test_ci_passes_when_all_of_it_does() -> None:
    jobs = _LOADED["ci.yml"]["jobs"]
    assert set(jobs["passed"]["needs"]) == set(jobs) - {"passed"}
    assert jobs["passed"]["if"] == "${{ always() }}"  # or a failed one would skip it, which passes
    required = json.loads(_text(ROOT / ".github/rulesets/main.json"))["rules"]
    (checks,) = [
        rule["parameters"] for rule in required if rule["type"] == "required_status_checks"
    ]
    assert checks["required_status_checks"] == [{"context": jobs["passed"]["name"]}]


def test_ci_asks_what_contributors_ask() -> None:
    """Each in a job of its own, so that one look tells which failed."""
    jobs = _LOADED["ci.yml"]["jobs"]
    for name, command in (
        ("lint", "make lint"),
        ("test", "make test"),
        ("coverage", "make coverage"),
        ("servers", ".ci/run"),
    ):
        assert command in [step.get("run") for step in jobs[name]["steps"]]


def test_ci_tests_every_python_that_the_product_names() -> None:
    (bounds,) = re.findall(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', _text(ROOT / "pyproject.toml")
    )
    every = [f"3.{minor}" for minor in range(int(bounds[0]), int(bounds[1]))]
    assert _LOADED["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"] == every


def test_ci_tests_on_the_servers_that_compose_starts() -> None:
    composed = yaml.safe_load(_text(ROOT / "docker-compose.yml"))["services"]
    for name, service in _LOADED["ci.yml"]["jobs"]["test"]["services"].items():
        assert service["image"] == composed[name]["image"]


@pytest.mark.parametrize("path", _WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_of_ours_is_there(path: Path) -> None:
    called = re.findall(r"(?:sh|python3) (scripts/[\w.]+)|(\.ci/run)", _text(path))
    for script in (first or second for first, second in called):
        assert (ROOT / script).exists(), script
    makefile = _text(ROOT / "Makefile")
    for target in re.findall(r"^\s+- run: make ([\w-]+)$", _text(path), flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_production_waits_for_staging_and_staging_for_ci() -> None:
    jobs = _LOADED["deploy.yml"]["jobs"]
    order = [("images", "ci"), ("staging", "images"), ("production", "staging")]
    assert [(name, jobs[name]["needs"]) for name, _ in order] == order
    assert jobs["ci"]["uses"] == "$/.github/workflows/ci.yml"
    for name in ("staging", "production"):
        assert jobs[name]["uses"] == "$/.github/workflows/deploy-to.yml"
        assert jobs[name]["with"] == {"environment": name}
    job = _LOADED["deploy-to.yml"]["jobs"]["deploy"]
    assert job["environment"]["name"] == "${{ inputs.environment }}"
    steps = [step.get("name", "") for step in job["steps"]]
    assert steps[-3:] == ["Deploy", "Smoke test", "Back to what ran before"]
    assert job["steps"][-1]["if"].startswith("${{ failure()")


def test_the_variables_of_an_environment_are_told() -> None:
    guide = _text(ROOT / "docs/how-to/deploy-with-compose.md")
    named = set(
        re.findall(r"\b(?:vars|secrets)\.(\w+)", _text(ROOT / ".github/workflows/deploy-to.yml"))
    )
    assert len(named) > 5
    assert {name for name in named if f"`{name}`" not in guide} == set()


def test_dependabot_looks_at_everything_that_is_pinned() -> None:
    updates = yaml.safe_load(_text(ROOT / ".github/dependabot.yml"))["updates"]
    ecosystems = [update["package-ecosystem"] for update in updates]
    assert ecosystems == ["pip", "docker", "docker-compose", "github-actions"]
    for update in updates:
        assert update["schedule"]["interval"] == "weekly"
        assert update["groups"]


def test_whom_code_belongs_to_names_what_is_there() -> None:
    for line in _text(ROOT / ".github/CODEOWNERS").splitlines():
        if line and not line.startswith(("#", "*")):
            pattern = line.split()[0].removeprefix("/")
            assert list(ROOT.glob(pattern.rstrip("/"))), pattern
