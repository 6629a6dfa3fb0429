"""`make run`'s launcher, driven for real: its programs, its terminal, its signals.

The engine is the stub, so that these tests are about starting and stopping, not about a model.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.launcher import (
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    Launcher,
    is_running,
    launched,
    paste,
    wait_until,
)
from tests.platform import free_port
from tests.stub_engine import StubEngine

_RESTART_TIMEOUT_S = 20.0
_LAST_LINE = "Ctrl-C stops everything."

pytestmark = [pytest.mark.launcher, pytest.mark.xdist_group(__name__)]


@pytest.fixture(scope="module")
def engine() -> Iterator[dict[str, str]]:
    with StubEngine() as stub:
        yield {"ENGINE_URL": stub.url, "ENGINE_API_KEY": stub.api_key}


@pytest.fixture(scope="module")
def running(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with launched(tmp_path_factory.mktemp("running"), **engine) as launcher:
        launcher.wait_until_told(_LAST_LINE, START_TIMEOUT_S)
        yield launcher


def test_the_printed_commands_ask_the_capital_of_france(running: Launcher) -> None:
    commands = [
        line for line in running.terminal.splitlines() if line.startswith(("TOKEN=", "curl "))
    ]
    pasted = paste(commands, running.folder)
    assert "Paris" in json.loads(pasted.stdout)["response"], pasted


def test_the_platform_is_ready_once_the_banner_is_there(running: Launcher) -> None:
    assert httpx2.get(f"{running.url}/ready", trust_env=False).status_code == httpx2.codes.OK
    assert running.printed("API documentation") == f"{running.url}/api/docs"
    assert running.printed("Administrator") == "admin"


def is_shared(path: Path) -> bool:
    try:
        return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    except FileNotFoundError:  # half a file a moment ago, which has its name by now
        return False


def test_what_it_writes_is_private(running: Launcher) -> None:
    written = [running.folder / ".env", *(running.folder / "data").rglob("*")]
    assert {path.name for path in written} >= {".env", "db.sqlite3", "web.log", "worker.log"}
    assert [path for path in written if is_shared(path)] == []


@pytest.mark.parametrize("word", ["gunicorn", "worker"])
def test_a_killed_program_comes_back(running: Launcher, word: str) -> None:
    name = {"gunicorn": "web"}.get(word, word)
    killed = running.program(word)
    killed.kill()
    running.wait_until_told(f"{name} runs again.", _RESTART_TIMEOUT_S)
    assert running.program(word) != killed
    wait_until(lambda: _is_live(running.url), _RESTART_TIMEOUT_S, running.terminal)


def _is_live(url: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/live", trust_env=False).status_code == httpx2.codes.OK
    return False


def test_a_second_launcher_on_the_same_data_is_refused(running: Launcher, tmp_path: Path) -> None:
    with launched(tmp_path, DATA_DIR=running.environment["DATA_DIR"]) as second:
        assert second.process.wait(START_TIMEOUT_S) == 1
        assert f"another SovereignCore (process {running.process.pid})" in second.terminal
        assert "Traceback" not in second.terminal


@pytest.mark.parametrize("name", ["PORT", "ENGINE_PORT"])
def test_a_busy_port_is_refused_by_the_name_of_its_setting(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        with launched(tmp_path, **{"ENGINE_PORT": str(free_port()), name: port}) as launcher:
            assert launcher.process.wait(START_TIMEOUT_S) == 1
            last_line = launcher.terminal.splitlines()[-1]
    assert last_line.startswith(f"SovereignCore cannot start: port {port} is taken")
    assert f"make run {name}=" in last_line


def test_one_port_for_two_purposes_is_refused(tmp_path: Path) -> None:
    port = str(free_port())
    with launched(tmp_path, PORT=port, ENGINE_PORT=port) as launcher:
        assert launcher.process.wait(START_TIMEOUT_S) == 1
    assert "PORT and ENGINE_PORT are the same port" in launcher.terminal


def test_wrong_settings_are_told_without_a_traceback(tmp_path: Path) -> None:
    with launched(tmp_path, PORT="http", LOG_LEVEL="LOUD") as launcher:
        assert launcher.process.wait(START_TIMEOUT_S) == 1
    assert "PORT: expected a whole number" in launcher.terminal
    assert "LOG_LEVEL: expected one of" in launcher.terminal
    assert "Traceback" not in launcher.terminal


def test_a_program_that_cannot_start_is_told_with_the_end_of_its_log(
    tmp_path: Path, engine: dict[str, str]
) -> None:
    with launched(tmp_path, GUNICORN_CMD_ARGS="--worker-class=nonsense", **engine) as launcher:
        assert launcher.process.wait(START_TIMEOUT_S) == 1
    assert "SovereignCore cannot start: web does not stay up." in launcher.terminal
    assert "class uri 'nonsense'" in launcher.terminal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything(
    number: signal.Signals, tmp_path: Path, engine: dict[str, str]
) -> None:
    with launched(tmp_path, **engine) as launcher:
        launcher.wait_until_told(_LAST_LINE, START_TIMEOUT_S)
        started = launcher.descendants()
        assert len(started) >= 4, "supervisord, web master and worker, jobs"
        assert launcher.stop(number) == 0
        assert [process for process in started if is_running(process)] == []


def test_after_ctrl_c_the_next_run_knows_its_data(tmp_path: Path, engine: dict[str, str]) -> None:
    with launched(tmp_path, **engine) as first:
        first.wait_until_told(_LAST_LINE, START_TIMEOUT_S)
        password = first.printed("Password (shown once)")
        secrets = (tmp_path / ".env").read_text()
        assert first.stop(signal.SIGINT) == 0
    with launched(tmp_path, **engine) as second:
        second.wait_until_told(_LAST_LINE, START_TIMEOUT_S)
        assert second.printed("Password (shown once)") is None
        assert (tmp_path / ".env").read_text() == secrets
        form = {"username": "admin", "password": password}
        reply = httpx2.post(f"{second.url}/api/v1/auth/token", data=form, trust_env=False)
        assert reply.status_code == httpx2.codes.OK


def test_ctrl_c_while_it_still_starts_ends_it_too(tmp_path: Path, engine: dict[str, str]) -> None:
    with launched(tmp_path, **engine) as launcher:
        launcher.wait_until_told("Starting", START_TIMEOUT_S)
        started = launcher.descendants()
        assert launcher.stop(signal.SIGINT) == 0
        assert _LAST_LINE not in launcher.terminal
        assert [process for process in started if is_running(process)] == []


@pytest.mark.parametrize("victim", ["launcher", "supervisord"])
def test_nothing_outlives_a_killed_parent(
    victim: str, tmp_path: Path, engine: dict[str, str]
) -> None:
    with launched(tmp_path, **engine) as launcher:
        launcher.wait_until_told(_LAST_LINE, START_TIMEOUT_S)
        started = launcher.descendants()
        if victim == "launcher":
            launcher.process.kill()
        else:
            psutil.Process(launcher.process.pid).children()[0].kill()
        launcher.process.wait(STOP_TIMEOUT_S)
        wait_until(
            lambda: not any(is_running(process) for process in started), STOP_TIMEOUT_S, started
        )
