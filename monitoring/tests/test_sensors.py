"""Sensors: what the host says, and None for what it does not."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
from pytest_django import Settings

from monitoring import sensors
from monitoring.sensors import HostSensors, silicon_id
from monitoring.tests.readings import NOTHING_KNOWN

pytestmark = pytest.mark.once

MIB = 1024 * 1024


class CpuTimes(NamedTuple):
    """The fields that psutil has on Linux, in seconds."""

    user: float = 0.0
    nice: float = 0.0
    system: float = 0.0
    idle: float = 0.0
    iowait: float = 0.0
    steal: float = 0.0
    guest: float = 0.0
    guest_nice: float = 0.0


class Host:
    """A host of two cores whose clock and counters a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.times = 1000.0, CpuTimes(user=500.0, idle=5000.0)
        self.engine_s: float | None = None
        monkeypatch.setattr(sensors, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(psutil, "cpu_times", lambda: self.times)
        monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
        monkeypatch.setattr(sensors, "_engine_cpu_s", lambda _file: self.engine_s)

    def passes(self, seconds: float, *, engine_s: float = 0.0, **spent: float) -> None:
        self.now_s += seconds
        self.times = CpuTimes(**{k: v + spent.get(k, 0.0) for k, v in self.times._asdict().items()})
        if self.engine_s is not None:
            self.engine_s += engine_s


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def cpu_of(instance: HostSensors) -> tuple[float | None, float | None]:
    readings = instance.read()
    return readings.cpu_percent, readings.engine_cpu_percent


def test_cpu_is_unknown_at_the_first_reading_and_a_share_of_all_cores_then(host: Host) -> None:
    instance = HostSensors()
    assert cpu_of(instance) == (None, None)
    host.passes(10, user=3.0, system=1.5, steal=0.5, idle=14.0, iowait=1.0)
    assert cpu_of(instance) == (25.0, None)  # 5 of 20 core seconds; waiting for disks is no work


def test_the_time_of_virtual_machines_is_not_counted_twice(host: Host) -> None:
    instance = HostSensors()
    instance.read()
    host.passes(10, user=8.0, guest=6.0, nice=2.0, guest_nice=1.0, idle=10.0)
    assert cpu_of(instance) == (50.0, None)


def test_the_engines_time_is_left_out(host: Host) -> None:
    host.engine_s = 77.0
    instance = HostSensors()
    assert cpu_of(instance) == (None, None)
    host.passes(10, engine_s=15.0, user=18.0, idle=2.0)
    assert cpu_of(instance) == (15.0, 75.0)


def test_an_engine_that_came_or_went_meanwhile_is_unknown(host: Host) -> None:
    instance = HostSensors()
    instance.read()
    host.engine_s = 5.0
    host.passes(10, user=10.0)
    assert cpu_of(instance) == (50.0, None)
    host.engine_s = None
    host.passes(10, user=10.0)
    assert cpu_of(instance) == (50.0, None)


def test_an_engine_that_was_restarted_has_used_nothing_yet(host: Host) -> None:
    host.engine_s = 500.0
    instance = HostSensors()
    instance.read()
    host.engine_s = 0.2
    host.passes(10, user=10.0)
    assert cpu_of(instance) == (50.0, 0.0)


def test_rounding_of_counters_never_leads_outside_0_to_100(host: Host) -> None:
    host.engine_s = 0.0
    instance = HostSensors()
    instance.read()
    host.passes(10, user=25.0)
    assert cpu_of(instance) == (100.0, 0.0)
    host.passes(10, user=5.0, engine_s=6.0)
    assert cpu_of(instance) == (0.0, 30.0)


def test_two_readings_at_once_tell_nothing_about_cpu(host: Host) -> None:
    instance = HostSensors()
    instance.read()
    host.passes(0.01, user=0.02)
    assert cpu_of(instance) == (None, None)


def test_a_host_without_sensors_has_no_readings(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tmp_path: Path
) -> None:
    def refuse(*_args: Any) -> Any:
        raise PermissionError

    for name in ("cpu_times", "virtual_memory", "sensors_temperatures"):
        monkeypatch.setattr(psutil, name, refuse)
    settings.DATA_DIR = tmp_path / "not-there"
    assert HostSensors().read() == NOTHING_KNOWN


def test_this_host_has_plausible_readings() -> None:
    readings = HostSensors().read()
    assert readings.memory_used_bytes is not None
    assert readings.memory_limit_bytes is not None
    assert readings.memory_percent is not None
    assert readings.disk_percent is not None
    assert readings.disk_free_bytes is not None
    assert 0 < readings.memory_used_bytes <= readings.memory_limit_bytes
    assert readings.memory_percent == round(
        100 * readings.memory_used_bytes / readings.memory_limit_bytes, 1
    )
    assert 0 <= readings.disk_percent <= 100


def temperatures_are(monkeypatch: pytest.MonkeyPatch, *values: float | None) -> float | None:
    chips = {f"chip{number}": [SimpleNamespace(current=v)] for number, v in enumerate(values)}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips)
    return HostSensors().read().temp_c


def test_the_hottest_plausible_temperature_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert temperatures_are(monkeypatch, 41.0, 73.5, 60.0) == 73.5
    # Broken sensors say such things.
    assert temperatures_are(monkeypatch, 41.0, 255.0, -273.0, 0.0, None, float("nan")) == 41.0
    assert temperatures_are(monkeypatch, 65261.85) is None
    assert temperatures_are(monkeypatch) is None


@pytest.mark.parametrize("name", ["coretemp", "k10temp", "cpu_thermal", "soc-thermal"])
def test_what_else_is_hot_does_not_count_beside_the_processor(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def read(processor: float) -> float | None:
        hot = {"amdgpu": 96.0, name: processor, "nct6775": 127.0}
        chips = {chip: [SimpleNamespace(current=value)] for chip, value in hot.items()}
        monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips)
        return HostSensors().read().temp_c

    assert read(45.0) == 45.0
    assert read(0.0) == 127.0


def test_a_platform_without_temperatures_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "sensors_temperatures")
    assert HostSensors().read().temp_c is None


@pytest.fixture
def engine_like() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has `runengine` among its arguments, as `manage.py runengine` has."""
    program = "sum(range(10**6)); print(flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "runengine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.communicate(b"\n", timeout=10)


def test_the_engines_cpu_time_is_read_from_its_process(
    engine_like: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    pid_file = tmp_path / "engine.pid"
    pid_file.write_text(f"{engine_like.pid}\n")
    spent_s = sensors._engine_cpu_s(pid_file)
    assert spent_s is not None
    assert 0 < spent_s < 10


def test_a_pid_file_of_something_else_is_no_engine(tmp_path: Path) -> None:
    pid_file = tmp_path / "engine.pid"
    assert sensors._engine_cpu_s(pid_file) is None  # there is none
    pid_file.write_text(str(os.getpid()))  # used again by a process that is no engine
    assert sensors._engine_cpu_s(pid_file) is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(10)
    pid_file.write_text(str(ended.pid))
    assert sensors._engine_cpu_s(pid_file) is None


@pytest.mark.parametrize("content", [b"", b"twelve", b"-1", b"9" * 40, b"\xff\xfe\x00", b"1.5"])
def test_a_pid_file_of_rubbish_is_no_engine(tmp_path: Path, content: bytes) -> None:
    pid_file = tmp_path / "engine.pid"
    pid_file.write_bytes(content)
    assert sensors._engine_cpu_s(pid_file) is None


@pytest.fixture
def fresh_silicon_id() -> Iterator[None]:
    silicon_id.cache_clear()
    yield
    silicon_id.cache_clear()


@pytest.mark.usefixtures("fresh_silicon_id")
def test_silicon_id_is_stable_and_keyed(settings: Settings) -> None:
    first = silicon_id()
    assert len(first) == 32
    assert int(first, 16) >= 0
    silicon_id.cache_clear()
    assert silicon_id() == first
    silicon_id.cache_clear()
    settings.SECRET_KEY = "another key, by which the same host has another name than before"
    assert silicon_id() != first


@pytest.mark.usefixtures("fresh_silicon_id")
def test_silicon_id_tells_hosts_without_a_machine_id_apart_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_path: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    names = []
    for node in ("one", "one", "other"):
        monkeypatch.setattr(platform, "node", lambda node=node: node)
        silicon_id.cache_clear()
        names.append(silicon_id())
    assert names[0] == names[1] != names[2]
