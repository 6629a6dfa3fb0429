"""Readings of this host. A reading that the host cannot give is None, never a guess.

Only reads. What a reading means is the governor's business.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import platform
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
from django.conf import settings

_CGROUP = Path("/sys/fs/cgroup")
# Linux's names of the chips that measure the processor. Others say what is no harm to it: of a
# graphics card 95 °C is normal, and a mainboard's input without a sensor may read 127 °C.
_CPU_CHIPS = (
    "coretemp",
    "k10temp",
    "k8temp",
    "zenpower",
    "via_cputemp",
    "x86_pkg_temp",
    "cpu",  # cpu_thermal, cpu-thermal, cpu0-thermal …
    "soc",  # soc_thermal, soc-thermal …
)


@dataclass(frozen=True, kw_only=True)
class HostReadings:
    """Percentages are of what this process may use: the cgroup's share where there is one."""

    cpu_percent: float | None
    engine_cpu_percent: float | None
    memory_percent: float | None
    memory_used_bytes: int | None
    memory_limit_bytes: int | None
    disk_percent: float | None
    disk_free_bytes: int | None
    temp_c: float | None


class HostSensors:
    """Reads the host. CPU use is measured between two calls, so one instance serves a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: tuple[float, float, float | None] | None = None  # wall, busy, engine: seconds

    def read(self) -> HostReadings:
        cpu, engine_cpu = self._cpu()
        used, limit = _memory()
        disk_percent, disk_free = disk_use(settings.DATA_DIR)
        return HostReadings(
            cpu_percent=cpu,
            engine_cpu_percent=engine_cpu,
            memory_percent=round(100 * used / limit, 1) if used is not None and limit else None,
            memory_used_bytes=used,
            memory_limit_bytes=limit,
            disk_percent=disk_percent,
            disk_free_bytes=disk_free,
            temp_c=_temperature_c(),
        )

    def _cpu(self) -> tuple[float | None, float | None]:
        """CPU use since the last call as percentages of all cores: (without the engine, engine).

        None on the first call, and for the engine when none runs on this host.
        """
        try:
            times = psutil.cpu_times()
        except (OSError, psutil.Error):
            return None, None
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # Guest time is already inside user time on Linux.
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        now, engine = time.monotonic(), _engine_cpu_s(settings.DATA_DIR / "engine.pid")
        with self._lock:
            last, self._last = self._last, (now, busy, engine)
        if last is None or now - last[0] < 0.05:
            return None, None
        capacity = (now - last[0]) * (psutil.cpu_count() or 1)
        engine_share = (
            None if engine is None or last[2] is None else max(0.0, engine - last[2]) / capacity
        )
        total_share = (busy - last[1]) / capacity
        own = min(1.0, max(0.0, total_share - (engine_share or 0.0)))
        return round(100 * own, 1), None if engine_share is None else round(100 * engine_share, 1)


def _engine_cpu_s(pid_file: Path) -> float | None:
    """CPU seconds used by the engine of this installation so far; None when none runs here."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        # A pid is used again one day; the file may outlive a killed engine.
        if "runengine" not in process.cmdline():
            return None
        spent = process.cpu_times()
    except (OSError, ValueError, psutil.Error):
        return None
    return float(spent.user + spent.system)


def _memory() -> tuple[int | None, int | None]:
    """(used, limit) in bytes, of the cgroup when it has a limit, else of the host."""
    try:
        host = psutil.virtual_memory()
    except (OSError, psutil.Error):
        return None, None
    own = _cgroup_memory(_own_cgroup())
    if own is not None and own[1] < host.total:
        return own
    return int(host.total - host.available), int(host.total)


def _own_cgroup() -> Path:
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return _CGROUP / line[3:].lstrip("/")
    except OSError:
        pass
    return _CGROUP


def _cgroup_memory(folder: Path) -> tuple[int, int] | None:
    """cgroup v2: what is charged less what the kernel would give back, and the limit."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((folder / "memory.current").read_text())
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "inactive_file":
                used -= int(value)
        return max(0, used), int(limit)
    except (OSError, ValueError):
        return None


def disk_use(folder: Path) -> tuple[float | None, int | None]:
    """Percent in use and bytes free of the disk that `folder` is on; None where nobody can tell."""
    try:
        usage = psutil.disk_usage(str(folder))
    except OSError:
        return None, None
    return float(usage.percent), int(usage.free)


def _temperature_c() -> float | None:
    """The processor's hottest plausible sensor, where it has none that of anything; None where
    there is none at all, as in most virtual machines."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    try:
        chips = read()
    except (OSError, psutil.Error):
        return None
    everything: list[float] = []
    of_cpu: list[float] = []
    for name, entries in chips.items():
        values = [entry.current for entry in entries]
        plausible = [float(value) for value in values if value is not None and 0 < value < 150]
        everything += plausible
        if name.startswith(_CPU_CHIPS):
            of_cpu += plausible
    return max(of_cpu or everything, default=None)


@functools.lru_cache(maxsize=1)
def silicon_id() -> str:
    """A stable name of this host that hides its identity: a digest keyed by SECRET_KEY."""
    identity = platform.node() + str(uuid.getnode())
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            identity = path.read_text().strip() or identity
            break
        except OSError:
            continue
    key = settings.SECRET_KEY.encode()
    return hmac.new(key, b"silicon-id:" + identity.encode(), hashlib.sha256).hexdigest()[:32]
