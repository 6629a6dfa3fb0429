"""The shipped configuration as a test can run it.

Everything comes from `deploy/`. Changed are addresses, paths of secrets and times, by the rules
that stand here and no others:

- scrape and evaluation intervals, those of groups too, become `EVERY_S`; `POSTGRES_EVERY_S` for
  postgres_exporter, which tries for 3 s before it says that PostgreSQL is away;
- of a `Hurry`, `windows` divides every range in an expression and every `for`, `ages` the seconds
  that an expression compares an age with, `waits` Alertmanager's waits.

Thresholds that are no times, labels, routes and texts stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.migrated import ROOT

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus/rules"
EVERY_S = 1.0
POSTGRES_EVERY_S = 5.0
_SHORTEST_RANGE_S = 4 * EVERY_S  # two samples are needed, and a scrape may be late
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+)(ms|s|m|h|d)")
_RANGE = re.compile(r"\[(\d+(?:ms|s|m|h|d))\]")
_AGE = re.compile(r"(_seconds[)}]* > )(\d+)\b")


@dataclass(frozen=True, kw_only=True)
class Hurry:
    """How many times faster than shipped."""

    windows: float = 1
    ages: float = 1
    waits: float = 1


@dataclass(frozen=True, kw_only=True)
class Places:
    """What listens where in a test: `host:port`, for `front_door` a URL."""

    platforms: tuple[str, ...]
    redis: str
    postgres: str
    blackbox: str
    alertmanager: str
    front_door: str


def seconds(duration: str) -> float:
    """Of `5m`, `1h`."""
    found = _DURATION.fullmatch(duration)
    assert found, duration
    return int(found[1]) * _UNITS_S[found[2]]


def _written(duration_s: float) -> str:
    return f"{max(1, round(duration_s * 1000))}ms"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rule_files() -> list[Path]:
    return sorted(RULES.glob("*.yml"))


def all_rules() -> Iterator[dict[str, Any]]:
    """Each recording and alerting rule that is shipped."""
    for path in rule_files():
        for group in load(path)["groups"]:
            yield from group["rules"]


def all_alerts() -> list[dict[str, Any]]:
    return [rule for rule in all_rules() if "alert" in rule]


def in_a_hurry(expression: str, hurry: Hurry) -> str:
    def window(found: re.Match[str]) -> str:
        return f"[{_written(max(_SHORTEST_RANGE_S, seconds(found[1]) / hurry.windows))}]"

    def age(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) / hurry.ages:g}"

    if hurry.windows != 1:
        expression = _RANGE.sub(window, expression)
    return _AGE.sub(age, expression)


def write_prometheus(folder: Path, places: Places, *, own: str, token: str, hurry: Hurry) -> Path:
    """Prometheus' configuration with rules, targets and token; `own` is its own address."""
    config = load(DEPLOY / "prometheus/prometheus.yml")
    config["global"] |= {
        "scrape_interval": _written(EVERY_S),
        "scrape_timeout": _written(EVERY_S),
        "evaluation_interval": _written(EVERY_S),
    }
    for job in config["scrape_configs"]:
        if job["job_name"] == "postgres":
            every = _written(POSTGRES_EVERY_S)
            job |= {"scrape_interval": every, "scrape_timeout": every}
    moved = {
        "127.0.0.1:9093": places.alertmanager,
        "127.0.0.1:9115": places.blackbox,
        "127.0.0.1:9090": own,
    }
    path = folder / "prometheus.yml"
    path.write_text(replaced(yaml.safe_dump(config, sort_keys=False), moved))
    (folder / "metrics_token").write_text(token)
    targets = folder / "targets"
    targets.mkdir(exist_ok=True)
    for name, addresses in (
        ("sovereigncore", places.platforms),
        ("redis", (places.redis,)),
        ("postgres", (places.postgres,)),
        ("tls", (places.front_door,)),
    ):
        assert (DEPLOY / f"prometheus/targets/{name}.yml").exists()
        (targets / f"{name}.yml").write_text(yaml.safe_dump([{"targets": list(addresses)}]))
    rules = folder / "rules"
    rules.mkdir(exist_ok=True)
    for source in rule_files():
        (rules / source.name).write_text(yaml.safe_dump(_rules(source, hurry), sort_keys=False))
    return path


def _rules(source: Path, hurry: Hurry) -> Any:
    content = load(source)
    for group in content["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule["expr"] = in_a_hurry(rule["expr"], hurry)
            if "for" in rule:
                rule["for"] = _written(seconds(rule["for"]) / hurry.windows)
    return content


def write_alertmanager(
    folder: Path,
    *,
    smtp: str,
    slack_url: str,
    webhook_url: str,
    secrets: dict[str, str],
    hurry: Hurry,
) -> Path:
    """Alertmanager's configuration; the mail server is one without TLS."""
    shipped = (DEPLOY / "alertmanager/alertmanager.yml").read_text(encoding="utf-8")
    for name, value in {**secrets, "slack_url": slack_url}.items():
        (folder / name).write_text(value)
    moved = {
        "/etc/sovereigncore/alertmanager": str(folder),
        "https://pager.example.org/alerts": webhook_url,
        "mail.example.org:587": smtp,
    }
    config = yaml.safe_load(replaced(shipped, moved))
    config["global"]["smtp_require_tls"] = False
    for route in (config["route"], *config["route"]["routes"]):
        for wait in ("group_wait", "group_interval", "repeat_interval"):
            if wait in route:
                route[wait] = _written(seconds(route[wait]) / hurry.waits)
    templates = folder / "templates"
    templates.mkdir(exist_ok=True)
    for source in (DEPLOY / "alertmanager/templates").glob("*.tmpl"):
        (templates / source.name).write_text(source.read_text(encoding="utf-8"))
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def replaced(text: str, moved: dict[str, str]) -> str:
    """Each thing that is shipped by ours. Fails for one that is not, or no longer."""
    for shipped, ours in moved.items():
        assert shipped in text, f"{shipped} is no longer shipped"
        text = text.replace(shipped, ours)
    return text
