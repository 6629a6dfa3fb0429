"""Readings made up for tests."""

from __future__ import annotations

from typing import Any

from monitoring.sensors import HostReadings

NOTHING_KNOWN = HostReadings(
    cpu_percent=None,
    engine_cpu_percent=None,
    memory_percent=None,
    memory_used_bytes=None,
    memory_limit_bytes=None,
    disk_percent=None,
    disk_free_bytes=None,
    temp_c=None,
)
LIMITS = {
    "cpu_conserve_percent": 85.0,
    "memory_conserve_percent": 85.0,
    "memory_survive_percent": 95.0,
    "disk_conserve_percent": 90.0,
    "disk_survive_percent": 97.0,
    "temp_conserve_c": 80.0,
    "temp_survive_c": 92.0,
}


def some(**known: Any) -> HostReadings:
    """Readings of which only `known` are."""
    return HostReadings(**{**vars(NOTHING_KNOWN), **known})
