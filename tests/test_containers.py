"""Dockerfile and `docker-compose.yml`, as far as they can be judged without an engine for
containers: their schema, what they name, and the settings as each container would have them.

`scripts/test_image.sh` judges the images themselves where there is an engine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.serve_engine import environment_of_engine
from sovereigncore import settings as product
from tests import environment
from tests.migrated import ROOT
from tests.test_env_example import documented

pytestmark = pytest.mark.once

_COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
_SERVICES: dict[str, dict[str, Any]] = _COMPOSE["services"]
_DEVELOPMENT = yaml.safe_load(
    (ROOT / "deploy/compose/compose.override.yml").read_text(encoding="utf-8")
)
_PLATFORM = ("migrate", "api", "worker")
_DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
_GUIDE = (ROOT / "docs/how-to/deploy-with-compose.md").read_text(encoding="utf-8")
_IMAGE = re.compile(r"[a-z0-9./_-]+:v?\d+\.\d+\.?\d*[a-z0-9.-]*")

every_service = pytest.mark.parametrize("name", sorted(_SERVICES))


def _environment(service: dict[str, Any]) -> dict[str, str]:
    given: dict[str, str] = service.get("environment", {})
    return given


def _secrets(service: dict[str, Any]) -> dict[str, str]:
    """Each secret and where it is found in the container."""
    found: dict[str, str] = {}
    for entry in service.get("secrets", []):
        if isinstance(entry, str):
            found[entry] = f"/run/secrets/{entry}"
        else:
            found[entry["source"]] = entry["target"]
    return found


def _mounts(service: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Source, target, and whether it is read-only."""
    for entry in service.get("volumes", []):
        source, target, *options = entry.split(":")
        yield source, target, options == ["ro"]


def _image(service: dict[str, Any]) -> str:
    """The one that is taken where the environment names no other."""
    return re.sub(r"\$\{\w+:-(.+)\}", r"\1", service["image"])


@pytest.mark.parametrize(
    "path", ["docker-compose.yml", "deploy/compose/compose.override.yml"], ids=str
)
def test_it_is_a_composition(path: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "check_jsonschema"),
            *("--builtin-schema", "vendor.compose-spec", path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_that_a_production_needs_is_there() -> None:
    assert set(_SERVICES) == {
        *("nginx", "api", "migrate", "worker", "engine", "postgres", "redis"),
        *("prometheus", "alertmanager", "grafana"),
        *("redis-exporter", "postgres-exporter", "blackbox-exporter"),
    }


@every_service
def test_a_container_can_do_no_more_than_it_needs(name: str) -> None:
    service = _SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service.get("privileged", False) is False
    user, _, _group = service["user"].partition(":")
    assert int(user) > 0
    for key in ("network_mode", "pid", "ipc", "devices", "extra_hosts"):
        assert key not in service


@every_service
def test_a_container_has_bounds(name: str) -> None:
    service = _SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert float(limits["cpus"]) > 0
    assert re.fullmatch(r"\d+[MG]", limits["memory"])
    assert limits["pids"] > 0
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert all("size=" in mount for mount in service["tmpfs"])


@every_service
def test_a_container_that_stays_tells_whether_it_is_well_and_comes_back(name: str) -> None:
    service = _SERVICES[name]
    if name == "migrate":
        assert service["healthcheck"] == {"disable": True}
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert set(service["healthcheck"]) >= {"test", "interval", "timeout", "retries"}
    assert service["stop_grace_period"]


def test_who_waits_for_whom() -> None:
    waits = {
        (name, other): how["condition"]
        for name, service in _SERVICES.items()
        for other, how in service.get("depends_on", {}).items()
    }
    assert waits[("api", "migrate")] == waits[("worker", "migrate")]
    assert waits.pop(("api", "migrate")) == "service_completed_successfully"
    assert waits.pop(("worker", "migrate")) == "service_completed_successfully"
    assert set(waits.values()) == {"service_healthy"}
    assert {("migrate", "postgres"), ("api", "redis"), ("nginx", "api")} <= set(waits)
    assert {other for _, other in waits} <= set(_SERVICES)


def test_nginx_alone_is_reached_from_outside() -> None:
    assert {name for name, service in _SERVICES.items() if "ports" in service} == {"nginx"}
    assert _SERVICES["nginx"]["ports"] == ["80:80", "443:443"]
    for name, service in _DEVELOPMENT["services"].items():
        assert name in _SERVICES
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_networks_without_a_way_out_are_the_rule() -> None:
    open_networks = {
        name for name, network in _COMPOSE["networks"].items() if not network.get("internal")
    }
    assert open_networks == {"edge", "egress"}
    joined = {name: set(service["networks"]) for name, service in _SERVICES.items()}
    assert set().union(*joined.values()) == set(_COMPOSE["networks"])
    assert {name for name, networks in joined.items() if networks & open_networks} == {
        *("nginx", "worker", "alertmanager"),
    }
    # Who reads what strangers write, and who holds what they wrote, are met by web processes only.
    for name in ("engine", "postgres", "redis"):
        assert joined[name] == {"back"}
    assert "back" not in joined["nginx"]
    for asked, asking in (("api", "nginx"), ("api", "prometheus"), ("nginx", "blackbox-exporter")):
        assert joined[asked] & joined[asking]


@every_service
def test_an_image_is_one_of_a_version(name: str) -> None:
    image = _image(_SERVICES[name])
    assert _IMAGE.fullmatch(image), image
    assert "latest" not in image
    if name in (*_PLATFORM, "engine"):
        kind = "engine" if name == "engine" else "web"
        assert image == f"sovereigncore-{kind}:{product.VERSION}"
        assert _SERVICES[name]["build"] == {"context": ".", "target": kind}


@every_service
def test_what_it_mounts_is_there(name: str) -> None:
    for source, target, is_read_only in _mounts(_SERVICES[name]):
        assert target.startswith("/")
        if source.startswith("."):
            assert is_read_only, source
            assert (ROOT / source).exists(), source
        else:
            assert source in _COMPOSE["volumes"]


def test_what_is_written_is_mounted_first_by_who_may_write() -> None:
    """An empty volume takes the owner from the image of the first container that mounts it."""
    for service in (_SERVICES["api"], _SERVICES["worker"]):
        assert "migrate" in service["depends_on"]
        writable = {source for source, _, _ in _mounts(service)}
        assert writable <= {source for source, _, ro in _mounts(_SERVICES["migrate"]) if not ro}
    for folder in ("/data", "/backups"):
        assert folder in re.findall(r"install -d -o 10001 .+", _DOCKERFILE)[0]


def test_every_volume_is_somebodys() -> None:
    mounted = {source for each in _SERVICES.values() for source, _, _ in _mounts(each)}
    assert set(_COMPOSE["volumes"]) <= mounted


@every_service
def test_what_it_reads_from_files_are_secrets_that_it_has(name: str) -> None:
    service = _SERVICES[name]
    paths = set(_secrets(service).values())
    assert set(_secrets(service)) <= set(_COMPOSE["secrets"])
    for variable, value in _environment(service).items():
        if variable.endswith("_FILE"):
            assert value in paths, variable
        else:
            assert not re.search("PASSWORD|TOKEN|SECRET|_KEY", variable), variable


def test_every_secret_is_used() -> None:
    used = {secret for service in _SERVICES.values() for secret in _secrets(service)}
    assert used == set(_COMPOSE["secrets"])


@pytest.mark.parametrize("name", [*_PLATFORM, "engine"])
def test_the_platforms_variables_are_settings(name: str) -> None:
    known = {setting for setting, _ in documented()}
    for variable in _environment(_SERVICES[name]):
        assert variable.removesuffix("_FILE") in known, variable


def test_the_engine_knows_no_secret_but_its_own() -> None:
    assert set(_secrets(_SERVICES["engine"])) == {"ENGINE_API_KEY"}


def test_web_processes_are_not_the_databases_owner() -> None:
    assert "DATABASE_OWNER_URL" not in _secrets(_SERVICES["api"])
    for name in ("migrate", "worker"):
        assert "DATABASE_URL" not in _secrets(_SERVICES[name])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `setup_env.sh --compose` writes."""
    folder = tmp_path_factory.mktemp("composed")
    subprocess.run(
        [
            *("sh", str(ROOT / "scripts/setup_env.sh"), "--compose", "--yes"),
            *("--domain", "ai.clinic.internal", "--mail-url", "smtp+tls://mail.clinic.internal"),
            *("--output", str(folder / ".env")),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder


def test_every_secret_is_made_by_the_setup_or_told_by_the_guide(installed: Path) -> None:
    assert stat.S_IMODE((installed / "secrets").stat().st_mode) == 0o700
    told = set()
    for name, secret in _COMPOSE["secrets"].items():
        path = installed / secret["file"]
        if path.exists():
            # Each container has a user of its own, and what is mounted keeps its mode.
            assert stat.S_IMODE(path.stat().st_mode) == 0o644, path
        else:
            told.add(name)
    assert told == {"TLS_CERTIFICATE", "TLS_KEY"}
    for name in told:
        assert f"secrets/{name}\n" in _GUIDE


def _as_in_the_container(name: str, installed: Path) -> dict[str, str]:
    """The variables of a service's process, with its secrets where they are on this host."""
    written = dict(
        line.split("=", 1)
        for line in (installed / ".env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    service = _SERVICES[name]
    assert service["env_file"] == [".env"]
    places = {
        target: str(installed / _COMPOSE["secrets"][secret]["file"])
        for secret, target in _secrets(service).items()
    }
    given = {
        variable: places.get(re.sub(r"^\$\{\w+:-(.+)\}$", r"\1", value), value)
        for variable, value in _environment(service).items()
    }
    given = {
        variable: re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value) for variable, value in given.items()
    }
    kind = "engine" if name == "engine" else "web"
    return {**_image_environment(kind), **written, **given, "ENV_FILE": os.devnull}


def _image_environment(target: str) -> dict[str, str]:
    """What the Dockerfile's stages set, without PATH."""
    found: dict[str, str] = {}
    for stage in ("runtime", target):
        body = re.split(rf"^FROM .+ AS {stage}$", _DOCKERFILE, flags=re.MULTILINE)[1]
        body = re.split(r"^FROM ", body, flags=re.MULTILINE)[0].replace("\\\n", " ")
        for line in re.findall(r"^ENV (.+)$", body, flags=re.MULTILINE):
            found |= dict(word.split("=", 1) for word in shlex.split(line))
    del found["PATH"]
    return found


_SHOWN = ("BIND", "DATA_DIR", "ENGINE_BIND", "ENGINE_URL", "ENGINE_IS_LOCAL", "REDIS_URL")
_SHOW = (
    "import json, django; django.setup(); from django.conf import settings as s;"
    f"shown = {{name: str(getattr(s, name)) for name in {_SHOWN!r}}};"
    "shown['USER'] = s.DATABASES['default'].get('USER', '');"
    "shown['HOSTS'] = s.ALLOWED_HOSTS;"
    "print(json.dumps(shown))"
)


def _run(environment: dict[str, str], *program: str, folder: Path = ROOT) -> str:
    """What the program says. Fails when it does."""
    done = subprocess.run(
        [sys.executable, *program],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _settings_with(environment: dict[str, str]) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(_run(environment, "-c", _SHOW))
    return shown


def test_the_platform_has_nothing_to_say_against_how_it_is_deployed(installed: Path) -> None:
    given = _as_in_the_container("api", installed)
    _run(given, "manage.py", "check", "--deploy", "--fail-level", "WARNING")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("api", "sovereigncore_app"),
        ("worker", "sovereigncore_owner"),
        ("migrate", "sovereigncore_owner"),
    ],
)
def test_a_containers_settings_are_taken(name: str, role: str, installed: Path) -> None:
    shown = _settings_with(_as_in_the_container(name, installed))
    assert shown["USER"] == role
    assert shown["BIND"] == "0.0.0.0"
    assert shown["DATA_DIR"] == "/data"
    assert shown["ENGINE_URL"] == "http://engine:8529"
    assert shown["REDIS_URL"].startswith("redis://sovereigncore:")
    assert "ai.clinic.internal" in shown["HOSTS"]


def test_the_engines_settings_are_taken_without_any_secret_of_others(installed: Path) -> None:
    given = environment_of_engine(_as_in_the_container("engine", installed))
    key = (installed / "secrets/ENGINE_API_KEY").read_text().strip()
    assert key not in given.values()  # by its file alone
    shown = _settings_with(given)
    assert (shown["ENGINE_BIND"], shown["ENGINE_IS_LOCAL"]) == ("0.0.0.0", "True")
    assert shown["DATA_DIR"] == "/data"


def test_an_engine_by_itself_is_given_throw_away_secrets() -> None:
    given = {"SECRET_KEY": "a", "AUDIT_KEY_FILE": "/b", "JWT_ALGORITHM": "RS256", "PATH": "/bin"}
    first, second = environment_of_engine(given), environment_of_engine(given)
    assert first["PATH"] == "/bin"
    assert "AUDIT_KEY_FILE" not in first
    assert "JWT_ALGORITHM" not in first
    for name in ("SECRET_KEY", "AUDIT_KEY", "JWT_SIGNING_KEYS"):
        assert len(first[name]) >= 64
        assert first[name] != second[name]


# --- The Dockerfile ---------------------------------------------------------------------------


def _copied() -> set[str]:
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", _DOCKERFILE, flags=re.MULTILINE):
        copied |= set(line.split()[:-1])
    return copied


def test_what_the_image_is_made_of_is_there_and_let_in() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert let_in == _copied()
    for path in let_in:
        assert (ROOT / path).exists(), path
    assert {"**/tests", "**/__pycache__"} <= set(rules)


def test_the_image_holds_every_package_of_the_product() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "scripts"}
    assert packages <= _copied()


def test_what_the_image_holds_is_enough_to_serve(tmp_path: Path) -> None:
    """Without tests, and without anything else that is not copied."""
    for name in sorted(_copied() - {"requirements.txt", "requirements-engine.txt"}):
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("tests", "__pycache__"))
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)
    settings = environment.test_environment(str(tmp_path / "data"), **_image_environment("web"))
    settings["DATA_DIR"] = str(tmp_path / "data")
    (tmp_path / "data").mkdir()
    for program in (
        ["manage.py", "migrate", "--noinput", "--verbosity", "0"],
        ["-c", "import sovereigncore.wsgi"],
        ["manage.py", "runengine", "--help"],
    ):
        _run(settings, *program, folder=tmp_path)


def test_the_image_installs_as_make_does() -> None:
    """The same files with the same promises: scripts/venv.sh is what every test here runs on."""
    script = (ROOT / "scripts/venv.sh").read_text(encoding="utf-8")
    assert "install runtime requirements.txt requirements-engine.txt" in script
    installed = re.findall(r"install --only-binary .+?-r (\S+)", _DOCKERFILE, flags=re.DOTALL)
    assert installed == ["requirements.txt", "requirements-engine.txt"]
    for promise in ("--no-deps", "--require-hashes"):
        assert promise in script
        assert _DOCKERFILE.count(f"{promise} ") == len(installed)


def test_both_images_stand_on_one_base_of_a_version_that_is_tested() -> None:
    bases = set(re.findall(r"^FROM (python:\S+)", _DOCKERFILE, flags=re.MULTILINE))
    (base,) = bases
    version = re.fullmatch(r"python:(3\.1[1-3])\.\d+-slim-trixie(@sha256:[0-9a-f]{64})?", base)
    assert version
    assert f"lib/python{version[1]}/" in _DOCKERFILE
    assert f"docker.io/library/{base.partition('@')[0]}" in _DOCKERFILE


def test_the_image_runs_without_root_and_says_whether_it_is_well() -> None:
    users = re.findall(r"^USER (.+)$", _DOCKERFILE, flags=re.MULTILINE)
    assert users[-1] == "10001:10001"
    assert {user for user in users if user != "0:0"} == {"10001:10001"}
    assert f'version="{product.VERSION}"' in _DOCKERFILE
    assert _DOCKERFILE.count("HEALTHCHECK ") == 2
    assert "STOPSIGNAL SIGTERM" in _DOCKERFILE


# --- What differs from one host without containers --------------------------------------------


def _load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_prometheus_asks_the_same_by_other_addresses() -> None:
    shipped = (ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8")
    for ours, theirs in (
        ("127.0.0.1:9093", "alertmanager:9093"),
        ("127.0.0.1:9115", "blackbox-exporter:9115"),
        ("127.0.0.1:9090", "prometheus:9090"),
    ):
        assert ours in shipped
        shipped = shipped.replace(ours, theirs)
    expected, composed = yaml.safe_load(shipped), _load("deploy/compose/prometheus.yml")
    by_name = [{"names": ["api"], "type": "A", "port": 8528, "refresh_interval": "10s"}]
    for job in expected["scrape_configs"]:
        if job.get("file_sd_configs") == [{"files": ["targets/sovereigncore.yml"]}]:
            del job["file_sd_configs"]
            job["dns_sd_configs"] = by_name
    assert composed == expected


def test_what_prometheus_asks_are_services() -> None:
    for path in sorted((ROOT / "deploy/compose/targets").glob("*.yml")):
        assert (ROOT / "deploy/prometheus/targets" / path.name).exists()
        (group,) = _load(f"deploy/compose/targets/{path.name}")
        (target,) = group["targets"]
        assert re.sub(r"^https://|[:/].*$", "", target) in _SERVICES


def test_grafana_asks_the_same_by_another_address() -> None:
    path = "deploy/grafana/provisioning/datasources/sovereigncore.yml"
    shipped = (ROOT / path).read_text(encoding="utf-8")
    assert "http://127.0.0.1:9090" in shipped
    shipped = shipped.replace("http://127.0.0.1:9090", "http://prometheus:9090")
    assert yaml.safe_load(shipped) == _load("deploy/compose/grafana_datasource.yml")


def test_nginx_passes_on_as_on_one_host_by_another_name() -> None:
    """But for the servers and the name server that knows them."""

    def rest(path: str) -> list[str]:
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        stripped = [line.strip() for line in lines]
        return [
            line for line in stripped if line and not line.startswith(("#", "server ", "resolver "))
        ]

    assert rest("deploy/compose/nginx_upstream.conf") == rest("deploy/nginx/upstream.conf")


def test_nginx_is_who_web_processes_believe() -> None:
    address = _SERVICES["nginx"]["networks"]["front"]["ipv4_address"]
    assert _environment(_SERVICES["api"])["TRUSTED_PROXIES"] == address


def test_postgresql_lets_in_the_same_users_by_the_same_means() -> None:
    def rules(path: str) -> set[tuple[str, ...]]:
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        words = [line.split() for line in lines if line.startswith("host ")]
        return {(word[1], word[2], word[4]) for word in words if word[4] != "reject"}

    assert rules("deploy/compose/pg_hba.conf") == rules("deploy/postgresql/pg_hba.conf")
