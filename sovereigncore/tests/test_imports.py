"""Who may import whom, read from the source: `monitoring` knows nobody, apps not each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
PACKAGES = ("sovereigncore", "accounts", "consciousness", "monitoring")
FOR_APPS = {
    f"sovereigncore.{name}" for name in ("api", "connections", "errors", "strict", "ratelimit")
}
READERS_OF_THE_ENVIRONMENT = {
    *("manage.py", "gunicorn.conf.py", "sovereigncore/settings.py"),
    *("sovereigncore/environment.py", "sovereigncore/wsgi.py"),
}


def is_product(path: Path) -> bool:
    return not {"tests", "migrations"} & set(path.relative_to(ROOT).parts)


def sources(*packages: str) -> list[Path]:
    found = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if is_product(path)]


def imports_of(path: Path, tree: ast.AST | None = None) -> Iterator[str]:
    """Every imported name in full, wherever in the file: `a.b` for `from a import b`."""
    for node in ast.walk(tree or ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def trespasses(importer: str, forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(importer)
        for name in imports_of(path)
        if is_below(name, forbidden)
    ]


def test_the_sources_are_where_this_test_looks() -> None:
    for package in PACKAGES:
        assert len(sources(package)) > 5


@pytest.mark.parametrize(
    ("importer", "forbidden"),
    [
        ("monitoring", "accounts"),
        ("monitoring", "consciousness"),
        ("accounts", "consciousness"),
        ("consciousness", "accounts"),
    ],
)
def test_apps_do_not_know_each_other(importer: str, forbidden: str) -> None:
    assert trespasses(importer, forbidden) == []


def test_of_monitoring_its_api_views_alone_know_the_project() -> None:
    """Everything else knows nobody: the project's own modules count and record with it."""
    takers = {
        str(path.relative_to(ROOT))
        for path in sources("monitoring")
        for name in imports_of(path)
        if is_below(name, "sovereigncore")
    }
    assert takers == {"monitoring/audit/views.py"}


@pytest.mark.parametrize("app", ["accounts", "consciousness", "monitoring"])
def test_of_the_project_apps_know_its_shared_modules_only(app: str) -> None:
    taken = [name for path in sources(app) for name in imports_of(path)]
    of_project = {name for name in taken if is_below(name, "sovereigncore")}
    shared = {name for name in of_project for module in FOR_APPS if is_below(name, module)}
    assert shared
    assert of_project == shared


# Asks the installation itself, for an operator who verifies it.
ASKS_ITSELF = "monitoring/deployment/by_http.py"


def test_only_engine_modules_talk_to_the_engine() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in sources(*PACKAGES)
        for name in imports_of(path)
        if is_below(name, "httpx2") or is_below(name, "httpcore2")
    }
    assert "consciousness/engine.py" in users
    others = {user for user in users if not user.startswith("consciousness/engine")}
    assert others == {ASKS_ITSELF}


@pytest.mark.parametrize("client", ["requests", "urllib.request", "http.client", "urllib3"])
def test_no_other_http_client_is_used(client: str) -> None:
    for package in PACKAGES:
        assert trespasses(package, client) == []


def test_tests_are_imported_by_tests_only() -> None:
    for path in sources(*PACKAGES):
        assert not [name for name in imports_of(path) if is_below(name, "tests")], path


def reads_environment(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            names = {alias.name for alias in node.names}
            if names & {"environ", "environb", "getenv"}:
                return True
    return False


def test_the_environment_is_read_in_one_place() -> None:
    top_level = [path for path in sorted(ROOT.glob("*.py")) if path.name != "conftest.py"]
    readers = {
        str(path.relative_to(ROOT))
        for path in [*sources(*PACKAGES), *top_level]
        if reads_environment(path)
    }
    assert readers <= READERS_OF_THE_ENVIRONMENT
    assert "sovereigncore/settings.py" in readers
