"""Web processes are replaced under load, and nobody notices."""

from __future__ import annotations

import pytest

from tests.rehearsal.load import loaded
from tests.rehearsal.rolling import reload_each, restart_each
from tests.rehearsal.topology import Topology

pytestmark = pytest.mark.rehearsal


def test_restarts_one_after_the_other_fail_no_request(parts: Topology) -> None:
    with loaded(parts) as load:
        for _ in range(2):
            restart_each(parts)
    load.check()


def test_reloads_fail_no_request(parts: Topology) -> None:
    with loaded(parts) as load:
        for _ in range(2):
            reload_each(parts)
    load.check()


def test_nginx_is_reloaded_under_load(parts: Topology) -> None:
    """As after a renewal of the certificate: old workers end what they have begun. Idle connections
    they close, and who asks on one in that very moment has to ask again, as HTTP has it."""
    with loaded(parts, keeps_connections=False) as load:
        for count in range(1, 4):
            parts.nginx.reload()
            load.wait_for(15 * count)
    load.check()
