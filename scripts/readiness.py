"""Waiting until the platform answers, and saying why when it does not."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from scripts.preflight import StartError
from scripts.prepare import Plan
from scripts.watch import Watch, say

_TIMEOUT_S = 120.0  # joining the bundled model's parts takes its time on a slow disk
_REMOTE_ENGINE_WAIT_S = 10.0  # it may be away for a while, which is no reason not to start
_PATIENCE_S = 5.0
_POLL_S = 0.25
_ANSWER_TIMEOUT_S = 3.0  # /ready promises an answer within 2 s
_TAIL_LINES = 15


def wait(plan: Plan, watch: Watch, *, is_cancelled: Callable[[], bool]) -> None:
    """Return once /ready says so. Raises StartError with the end of the log that tells why not."""
    say("Starting …")
    started_s = time.monotonic()
    is_patient = True
    while not is_cancelled():
        watch.look()
        if not watch.programs.is_alive:
            raise _failure(watch, "supervisord", "ended")
        if name := watch.failing():
            raise _failure(watch, name, "does not stay up")
        down = _components_down(plan)
        waited_s = time.monotonic() - started_s
        waits_for_engine = down == ["engine"]
        if down == []:
            return
        if waits_for_engine and not plan.runs_engine and waited_s > _REMOTE_ENGINE_WAIT_S:
            say(f"The engine at {plan.engine_url} does not answer. Until it does, neither do we.")
            return
        if waited_s > _TIMEOUT_S:
            raise _failure(watch, "engine" if waits_for_engine else "web", "is not ready in time")
        if is_patient and waited_s > _PATIENCE_S:
            is_patient = False
            say(
                "Still starting: the model is loading …" if waits_for_engine else "Still starting …"
            )
        time.sleep(_POLL_S)


def _failure(watch: Watch, name: str, what: str) -> StartError:
    tail = watch.programs.tail(name, lines=_TAIL_LINES)
    return StartError(f"{name} {what}. The end of {watch.programs.log_path(name)}:\n\n{tail}\n")


def _components_down(plan: Plan) -> list[str] | None:
    """What /ready finds down; None while nothing answers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(plan.bind, plan.bind)  # noqa: S104
    # By its public name where ALLOWED_HOSTS refuses the local one.
    is_local_allowed = {"*", "127.0.0.1"} & set(plan.allowed_hosts)
    name = "127.0.0.1" if is_local_allowed else urlsplit(plan.public_base_url).netloc
    connection = http.client.HTTPConnection(host, plan.port, timeout=_ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/ready", headers={"Host": name})
        components = json.loads(connection.getresponse().read())["components"]
        return [key for key, health in components.items() if health["status"] != "up"]
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return None
    finally:
        connection.close()
