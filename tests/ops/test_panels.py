"""Every query of the dashboards and of the rules, asked of a real Prometheus that watches the
platform under a short load: each parses and returns data."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest

from tests.chaos.grown import within
from tests.ops import dashboards, deployed
from tests.ops.dashboards import Query, all_queries, selectors_in
from tests.ops.load import fail_once, loaded, use_once
from tests.ops.watched import Watched, watched

pytestmark = pytest.mark.ops

_LOOK_BACK_S = 60.0
_DATA_WITHIN_S = 60.0
_RATE_INTERVAL = "15s"


@pytest.fixture(scope="module")
def under_load() -> Iterator[Watched]:
    backups = {"BACKUP_DIR": "backups", "BACKUP_KEY": secrets.token_hex(32)}
    with watched(None, RATE_LIMIT_RESET="4/h", **backups) as parts, loaded(parts):
        use_once(parts)
        fail_once(parts)
        within(
            _DATA_WITHIN_S,
            lambda: not _without_data(parts, ["sovereigncore:slo_latency_broken:increase3d"]),
            "rules evaluated",
        )
        yield parts


def _without_data(parts: Watched, expressions: list[str]) -> list[str]:
    return [each for each in expressions if not parts.prometheus.query(each)]


def _has_data(parts: Watched, query: Query) -> bool:
    expression = query.expression.replace("$__rate_interval", _RATE_INTERVAL)
    if query.is_instant:
        return bool(parts.prometheus.query(expression))
    now_s = time.time()
    return bool(parts.prometheus.query_range(expression, start_s=now_s - _LOOK_BACK_S, end_s=now_s))


def test_every_target_of_the_scrape_configuration_is_up(under_load: Watched) -> None:
    jobs = {
        each["job_name"]
        for each in deployed.load(deployed.DEPLOY / "prometheus/prometheus.yml")["scrape_configs"]
    }
    wanted = {(job, "up", "") for job in jobs}

    def found() -> set[tuple[str, str, str]]:
        targets = under_load.prometheus.get("/api/v1/targets")["data"]["activeTargets"]
        return {(each["labels"]["job"], each["health"], each["lastError"]) for each in targets}

    until_s = time.monotonic() + _DATA_WITHIN_S
    while found() != wanted and time.monotonic() < until_s:
        time.sleep(deployed.EVERY_S)  # one may not have been scraped yet
    assert found() == wanted


def test_every_panel_has_data(under_load: Watched) -> None:
    """None may be empty: the load, the worker and the exporters bring something for each."""
    missing = set(all_queries())
    until_s = time.monotonic() + _DATA_WITHIN_S
    while missing and time.monotonic() < until_s:
        missing = {query for query in missing if not _has_data(under_load, query)}
        time.sleep(deployed.EVERY_S)
    assert sorted((query.name, query.expression) for query in missing) == []


def test_every_recording_rule_has_data(under_load: Watched) -> None:
    records = [rule["record"] for rule in deployed.all_rules() if "record" in rule]
    assert _without_data(under_load, records) == []


def test_every_rule_is_well(under_load: Watched) -> None:
    """Prometheus says of each rule whether its last evaluation went well."""
    groups = under_load.prometheus.get("/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(list(deployed.all_rules()))
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []


def test_what_every_alert_looks_at_is_there(under_load: Watched) -> None:
    """An alert on a series that never comes would never fire."""
    looked_at = {
        selector
        for rule in deployed.all_alerts()
        for selector in dashboards.selectors_in(rule["expr"])
    }
    assert len(looked_at) > 30
    assert _without_data(under_load, sorted(looked_at)) == []


def test_selectors_are_found_with_their_matchers() -> None:
    expression = 'sum by (le) (rate(redis_x_total{a="b", c=~"up|d"}[5m])) / (up > 0)'
    assert selectors_in(expression) == ['redis_x_total{a="b", c=~"up|d"}', "up"]
