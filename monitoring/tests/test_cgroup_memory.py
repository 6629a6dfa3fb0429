"""Memory against the cgroup that limits it, else against the host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from monitoring import sensors
from monitoring.sensors import HostSensors

MIB = 1024 * 1024
HOST = SimpleNamespace(total=8192 * MIB, available=2048 * MIB)


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: HOST)
    monkeypatch.setattr(sensors, "_own_cgroup", lambda: tmp_path)
    return tmp_path


def limit(folder: Path, *, maximum: str, current: str, stat: str = "anon 1\n") -> None:
    (folder / "memory.max").write_text(f"{maximum}\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(stat)


def memory() -> tuple[int | None, int | None, float | None]:
    readings = HostSensors().read()
    return readings.memory_used_bytes, readings.memory_limit_bytes, readings.memory_percent


OF_THE_HOST = (6144 * MIB, 8192 * MIB, 75.0)


def test_a_limited_cgroup_is_what_counts(cgroup: Path) -> None:
    stat = f"anon {100 * MIB}\ninactive_file {200 * MIB}\nactive_file {50 * MIB}\n"
    limit(cgroup, maximum=str(1024 * MIB), current=str(712 * MIB), stat=stat)
    assert memory() == (512 * MIB, 1024 * MIB, 50.0)  # less the cache that can be given back


def test_a_cgroup_that_is_mostly_cache_uses_nothing(cgroup: Path) -> None:
    limit(cgroup, maximum=str(1024 * MIB), current="1000", stat="inactive_file 2000\n")
    assert memory() == (0, 1024 * MIB, 0.0)


@pytest.mark.parametrize("maximum", ["max", str(8192 * MIB), str(2**62)])
def test_without_a_limit_below_the_hosts_it_is_the_host(cgroup: Path, maximum: str) -> None:
    limit(cgroup, maximum=maximum, current=str(100 * MIB))
    assert memory() == OF_THE_HOST


@pytest.mark.parametrize("name", ["memory.max", "memory.current", "memory.stat"])
@pytest.mark.parametrize("content", [None, b"rubbish here", b"inactive_file many", b"\xff"])
def test_what_cannot_be_read_is_not_guessed(cgroup: Path, name: str, content: bytes | None) -> None:
    limit(cgroup, maximum=str(1024 * MIB), current=str(512 * MIB))
    if content is None:
        (cgroup / name).unlink()
    else:
        (cgroup / name).write_bytes(content)
    unreadable = not (name == "memory.stat" and content == b"rubbish here")
    assert memory() == (OF_THE_HOST if unreadable else (512 * MIB, 1024 * MIB, 50.0))


def test_a_limit_of_nothing_has_no_percentage(cgroup: Path) -> None:
    limit(cgroup, maximum="0", current="4096")
    assert memory() == (4096, 0, None)


def test_the_cgroup_is_the_processs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/self/cgroup": "1:name=systemd:/old\n0::/system.slice/web.service\n"}
    monkeypatch.setattr(Path, "read_text", lambda path: files[str(path)])
    assert sensors._own_cgroup() == Path("/sys/fs/cgroup/system.slice/web.service")
    files["/proc/self/cgroup"] = "4:memory:/only/version/one\n"
    assert sensors._own_cgroup() == Path("/sys/fs/cgroup")


def test_a_system_without_cgroups_has_the_top_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert sensors._own_cgroup() == Path("/sys/fs/cgroup")
