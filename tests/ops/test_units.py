"""`deploy/systemd`, asked of systemd's own program, and its commands started with its variables.

No systemd runs here: what a running one would add, its sandbox, is judged by its own figures.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests import environment, migrated
from tests.migrated import ROOT
from tests.ops.programs import check
from tests.platform import free_port

pytestmark = pytest.mark.ops

_UNITS = ROOT / "deploy/systemd"
_SERVICES = sorted(_UNITS.glob("*.service"))
_ALL = sorted(_UNITS.iterdir())
_MOST_EXPOSED = 2.0  # of 10
_START_WITHIN_S = 60.0

each_service = pytest.mark.parametrize("path", _SERVICES, ids=lambda path: path.stem)


def _read(path: Path) -> list[tuple[str, str]]:
    """A unit's settings in their order; names may come several times."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [
        (line.partition("=")[0], line.partition("=")[2])
        for line in lines
        if "=" in line and not line.startswith("#")
    ]


def _values(path: Path, name: str) -> list[str]:
    return [value for key, value in _read(path) if key == name]


def _value(path: Path, name: str) -> str:
    (value,) = _values(path, name)
    return value


def _installed(folder: Path) -> list[Path]:
    """The units where systemd's program takes them: with the paths of this project. A template is
    asked by an instance of it."""
    moved = {"/opt/sovereigncore/.venv/bin/python": sys.executable, "/opt/sovereigncore": str(ROOT)}
    written = []
    for unit in _ALL:
        text = unit.read_text(encoding="utf-8")
        if unit.suffix == ".service":
            for shipped, ours in moved.items():
                assert shipped in text
                text = text.replace(shipped, ours)
        path = folder / unit.name.replace("@.", "@8528.")
        path.write_text(text)
        written.append(path)
    return written


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    # Whom they name and wait for need not be on this host, so neither is asked for.
    said = check(
        "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *_installed(tmp_path)
    )
    assert said == ""


@each_service
def test_a_service_is_hardly_exposed(path: Path, tmp_path: Path) -> None:
    (unit,) = [each for each in _installed(tmp_path) if each.name.startswith(path.stem)]
    said = check("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    (figure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(figure) <= _MOST_EXPOSED, said


def _of_supervisor(program: str) -> list[str]:
    supervisor = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    supervisor.read(ROOT / "deploy/supervisord.conf")
    return shlex.split(supervisor[f"program:{program}"]["command"])[1:]


@pytest.mark.parametrize(
    ("unit", "program"),
    [
        ("sovereigncore-web@.service", "web"),
        ("sovereigncore-worker.service", "worker"),
        ("sovereigncore-engine.service", "engine"),
    ],
)
def test_a_unit_runs_what_make_run_runs(unit: str, program: str) -> None:
    command = shlex.split(_value(_UNITS / unit, "ExecStart"))
    assert command[0] == "/opt/sovereigncore/.venv/bin/python"
    assert command[1:] == _of_supervisor(program)


@each_service
def test_a_service_comes_back_and_belongs_to_all_of_them(path: Path) -> None:
    engine = path.stem == "sovereigncore-engine"
    assert _value(path, "Restart") == ("on-failure" if engine else "always")
    assert _value(path, "PartOf") == _value(path, "WantedBy") == "sovereigncore.target"
    # An unlimited number of starts in a row would hide an operator's mistake.
    assert int(_value(path, "StartLimitBurst")) > 0
    assert int(_value(path, "StartLimitIntervalSec")) > int(_value(path, "StartLimitBurst"))


def test_a_web_process_is_given_the_time_that_its_streams_have() -> None:
    given_s = int(_value(_UNITS / "sovereigncore-web@.service", "TimeoutStopSec"))
    text = (ROOT / "gunicorn.conf.py").read_text(encoding="utf-8")
    (graceful_s,) = re.findall(r"^graceful_timeout = (\d+)", text, flags=re.MULTILINE)
    assert given_s > int(graceful_s)


def test_only_who_changes_the_audit_trails_files_is_the_databases_owner() -> None:
    with_owner = {path.stem for path in _SERVICES if _values(path, "LoadCredential")}
    assert with_owner == {"sovereigncore-worker"}


def _variables(path: Path, *, instance: str, data_dir: Path, credentials: Path) -> dict[str, str]:
    """A unit's variables as systemd would give them, on this host's paths."""
    moved = {
        "/etc/sovereigncore/sovereigncore.env": str(data_dir / "sovereigncore.env"),
        "/var/lib/sovereigncore": str(data_dir),
    }
    found = {}
    for assignment in _values(path, "Environment"):
        name, _, value = assignment.partition("=")
        value = moved.get(value, value).replace("%i", instance).replace("%d", str(credentials))
        found[name] = value
    return found


@contextmanager
def _started(
    unit: str, tmp_path: Path, *, instance: str = ""
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Its ExecStart with its variables, and the log. Settings stand in its ENV_FILE."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    settings = environment.test_environment(str(data_dir))
    del settings["ENV_FILE"], settings["DATA_DIR"]
    text = "".join(f"{name}={value}\n" for name, value in settings.items())
    (data_dir / "sovereigncore.env").write_text(text)
    with migrated.own_database(str(data_dir), server="") as database:
        (tmp_path / "database_owner_url").write_text(database["DATABASE_URL"] + "\n")
        path = _UNITS / unit
        variables = _variables(path, instance=instance, data_dir=data_dir, credentials=tmp_path)
        command = [sys.executable, *shlex.split(_value(path, "ExecStart"))[1:]]
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], **variables},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process, log
        finally:
            process.kill()
            process.wait(_START_WITHIN_S)


def _end(process: subprocess.Popen[bytes], path: Path) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(float(_value(path, "TimeoutStopSec")))


def test_the_web_unit_serves_on_the_port_that_it_is_named_for(tmp_path: Path) -> None:
    port, unit = free_port(), "sovereigncore-web@.service"
    with _started(unit, tmp_path, instance=str(port)) as (process, log):
        until_s = time.monotonic() + _START_WITHIN_S
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until_s, log.read_text()
            try:
                reply = httpx2.get(f"http://127.0.0.1:{port}/live", trust_env=False)
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        assert reply.json() == {"status": "alive"}
        assert _end(process, _UNITS / unit) == 0


def test_the_worker_unit_works(tmp_path: Path) -> None:
    unit = "sovereigncore-worker.service"
    with _started(unit, tmp_path) as (process, log):
        until_s = time.monotonic() + _START_WITHIN_S
        while "job_finished" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until_s, log.read_text()
            time.sleep(0.05)
        assert _end(process, _UNITS / unit) == 0
