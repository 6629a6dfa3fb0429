"""Settings of live processes whose leases are short; see tests/hasty.py."""

from __future__ import annotations

from tests.live_settings import *  # noqa: F403
from tests.live_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.hasty.Hasty"]
