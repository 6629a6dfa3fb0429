"""`scripts/setup_redis.sh`: users.acl with the platform's password, never replaced unasked."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests import shipped_redis
from tests.migrated import ROOT

pytestmark = pytest.mark.once

PASSWORD = "5f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
URL = f"redis://sovereigncore:{PASSWORD}@127.0.0.1:6379/0"
OTHERS = ("REDIS_EXPORTER_PASSWORD", "REDIS_ADMIN_PASSWORD")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "scripts/setup_redis.sh", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def env_file(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_text(f"DEBUG=false\nREDIS_URL={URL}\n")
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_it_writes_what_redis_is_started_with(tmp_path: Path, env_file: Path) -> None:
    folder = tmp_path / "etc/redis"
    done = run("--env", str(env_file), "--output", str(folder))
    assert done.returncode == 0, done.stderr
    others = {name: (folder / name).read_text() for name in OTHERS}
    assert len({PASSWORD, *others.values()}) == 3
    (tmp_path / "expected").mkdir()
    expected = shipped_redis.write_users(
        tmp_path / "expected",
        {
            "sovereigncore": PASSWORD,
            "exporter": others["REDIS_EXPORTER_PASSWORD"],
            "admin": others["REDIS_ADMIN_PASSWORD"],
        },
    )
    assert (folder / "users.acl").read_text() == expected.read_text()
    assert f"aclfile {folder}/users.acl\n" in (folder / "redis.conf").read_text()
    assert {path.name: mode(path) for path in folder.iterdir()} == {
        **dict.fromkeys(OTHERS, 0o600),
        **dict.fromkeys(("users.acl", "redis.conf"), 0o640),
    }
    assert mode(folder) == 0o750
    assert mode(folder.parent) & 0o005 == 0o005  # Redis passes through
    assert not any(secret in done.stdout + done.stderr for secret in (PASSWORD, *others.values()))


def test_redis_finds_its_users_wherever_it_is_started(tmp_path: Path, env_file: Path) -> None:
    folder = os.path.relpath(tmp_path / "redis", ROOT)
    assert run("--env", str(env_file), "--output", folder).returncode == 0
    assert f"aclfile {tmp_path}/redis/users.acl\n" in (tmp_path / "redis/redis.conf").read_text()


@pytest.mark.parametrize("name", ["a b", "a&b", "a|b", "a\\b", "a'b", 'a"b'])
def test_a_path_that_redis_would_not_take_writes_nothing(
    tmp_path: Path, env_file: Path, name: str
) -> None:
    done = run("--env", str(env_file), "--output", str(tmp_path / name))
    assert done.returncode == 1
    assert "do not belong into a path" in done.stderr
    assert list(tmp_path.iterdir()) == [env_file]


def test_it_may_run_again_and_keeps_what_is_there(tmp_path: Path, env_file: Path) -> None:
    folder = tmp_path / "redis"
    run("--env", str(env_file), "--output", str(folder))
    (folder / "redis.conf").write_text("maxmemory 1gb\n")
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert run("--env", str(env_file), "--output", str(folder)).returncode == 0
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_another_password_needs_consent_and_the_old_file_is_kept(
    tmp_path: Path, env_file: Path
) -> None:
    folder = tmp_path / "redis"
    run("--env", str(env_file), "--output", str(folder))
    before = (folder / "users.acl").read_text()
    env_file.write_text(f"REDIS_URL={URL.replace(PASSWORD, PASSWORD[::-1])}\n")
    refused = run("--env", str(env_file), "--output", str(folder))
    assert refused.returncode == 1
    assert "--yes replaces it" in refused.stderr
    assert (folder / "users.acl").read_text() == before
    assert run("--env", str(env_file), "--output", str(folder), "--yes").returncode == 0
    after = (folder / "users.acl").read_text().splitlines()
    changed = [line for line in after if line not in before.splitlines()]
    assert [line.split()[1] for line in changed] == ["sovereigncore"]
    (kept,) = folder.glob("users.acl.before-*")
    assert kept.read_text() == before


def test_the_url_may_stand_where_the_platform_takes_it_from(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(URL + "\n")
    (tmp_path / ".env").write_text(f"REDIS_URL_FILE={tmp_path}/url\n")
    texts = []
    for name, variables in (
        ("by-file", {"ENV_FILE": str(tmp_path / ".env")}),
        ("by-environment", {"REDIS_URL": URL}),
        ("by-a-file-of-the-environment", {"REDIS_URL_FILE": str(tmp_path / "url")}),
    ):
        folder = tmp_path / name
        assert run("--output", str(folder), **variables).returncode == 0
        texts.append((folder / "users.acl").read_text().splitlines()[1])
    assert len(set(texts)) == 1


def test_containers_get_files_that_their_users_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    assert run("--secrets", str(folder), REDIS_URL=URL).returncode == 0
    assert mode(folder) == 0o700
    assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
        (*OTHERS, "users.acl"), 0o644
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "REDIS_URL is not set"),
        ("redis://127.0.0.1:6379/0", "expected redis://sovereigncore:PASSWORD@"),
        (f"redis://:{PASSWORD}@127.0.0.1:6379/0", "expected redis://sovereigncore:PASSWORD@"),
        ("redis://sovereigncore:short@127.0.0.1:6379/0", "too short"),
        (f"redis://sovereigncore:%41{PASSWORD}@127.0.0.1:6379/0", "letters, digits and"),
    ],
)
def test_a_url_that_cannot_be_meant_writes_nothing(tmp_path: Path, url: str, said: str) -> None:
    (tmp_path / ".env").write_text(f"REDIS_URL={url}\n")
    done = run("--env", str(tmp_path / ".env"), "--output", str(tmp_path / "redis"))
    assert done.returncode == 1
    assert said in done.stderr
    assert PASSWORD not in done.stderr
    assert not (tmp_path / "redis").exists()
