"""What can be said of `deploy/` without the programs that read it: every alert is tested and
explained, every dashboard is whole, and every metric that they name exists.

`make test-ops` asks the programs themselves.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import URLPattern, get_resolver

from tests.migrated import ROOT
from tests.ops import dashboards, deployed, exporters

pytestmark = pytest.mark.once

_ALERTS = deployed.all_alerts()
_RUNBOOK = "docs/how-to/runbook.md"
_DASHBOARDS = dashboards.all_dashboards()
_CASES = sorted((deployed.DEPLOY / "prometheus/tests").glob("*.yml"))
_GENERATING = {
    *("ProcessView", "QueryView"),
    *("ChatCompletionsView", "CompletionsView", "EmbeddingsView"),
}
_PROBES = {"live", "ready", "health", "metrics"}
# Suffixes of the series that a histogram gives.
_OF_HISTOGRAMS = ("_bucket", "_count", "_sum")


def _known_metrics() -> set[str]:
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    ours = set(re.findall(r"^\| `((?:sovereigncore|django)_\w+)`", page, flags=re.MULTILINE))
    recorded = {rule["record"] for rule in deployed.all_rules() if "record" in rule}
    return ours | recorded | exporters.ALL


def _unknown(names: set[str]) -> set[str]:
    known = _known_metrics()
    return {
        name
        for name in names - known
        if not any(name.endswith(end) and name.removesuffix(end) in known for end in _OF_HISTOGRAMS)
    }


def _anchors() -> set[str]:
    """As GitHub and most others make them of headings."""
    text = (ROOT / _RUNBOOK).read_text(encoding="utf-8")
    return {
        heading.lower().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in _ALERTS]
    assert len(names) > 30
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("rule", _ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_bad_what_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["labels"]["concern"]
    assert rule["for"]
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    # How long, how much, how many: a description without a number cannot be judged.
    assert re.search(r"\d|\$value", annotations["description"])
    page, _, anchor = annotations["runbook_url"].partition("#")
    assert page == _RUNBOOK
    assert anchor in _anchors()


def test_every_alert_is_tested_on_its_fault_and_without_it() -> None:
    fires: set[str] = set()
    stays_quiet: set[str] = set()
    for path in _CASES:
        for case in deployed.load(path)["tests"]:
            for asked in case["alert_rule_test"]:
                (fires if asked.get("exp_alerts") else stays_quiet).add(asked["alertname"])
    names = {rule["alert"] for rule in _ALERTS}
    assert names - fires == set()
    assert names - stays_quiet == set()
    assert fires | stays_quiet == names


def test_the_runbook_explains_no_alert_that_is_gone() -> None:
    used = {rule["annotations"]["runbook_url"].partition("#")[2] for rule in _ALERTS}
    text = (ROOT / _RUNBOOK).read_text(encoding="utf-8")
    assert {heading.lower() for heading in re.findall(r"^### (.+)$", text, re.MULTILINE)} == used


def test_rules_name_metrics_that_exist() -> None:
    named = {name for rule in deployed.all_rules() for name in dashboards.metrics_in(rule["expr"])}
    assert len(named) > 30
    assert _unknown(named) == set()


def test_the_latency_promise_leaves_out_just_what_generates_and_what_probes() -> None:
    """By route names, which `sovereigncore/urls.py` gives."""
    left_out: set[str] = set()
    for rule in deployed.all_rules():
        if rule.get("record") == "sovereigncore:slo_latency_requests:rate5m":
            (names,) = re.findall(r'route!~"([^"]+)"', rule["expr"])
            left_out = set(names.split("|"))
    generating = {
        pattern.name
        for pattern in get_resolver().url_patterns
        if isinstance(pattern, URLPattern)
        and getattr(getattr(pattern.callback, "cls", None), "__name__", "") in _GENERATING
    }
    assert len(generating) == len(_GENERATING)
    assert left_out == generating | _PROBES


def test_inhibitions_name_alerts_that_exist() -> None:
    config = deployed.load(deployed.DEPLOY / "alertmanager/alertmanager.yml")
    names = {rule["alert"] for rule in _ALERTS}
    concerns = {rule["labels"]["concern"] for rule in _ALERTS}
    assert config["inhibit_rules"]
    for inhibition in config["inhibit_rules"]:
        for matcher in (*inhibition["source_matchers"], *inhibition["target_matchers"]):
            label, pattern = re.fullmatch(r'(\w+)=~?"(.+)"', matcher).groups()  # type: ignore[union-attr]
            values = {"alertname": names, "concern": concerns, "slo": {"availability", "latency"}}
            for part in pattern.split("|") if "(" not in pattern else [pattern]:
                assert any(re.fullmatch(part, value) for value in values[label]), matcher


def test_there_are_the_four_dashboards() -> None:
    assert {name: dashboard["title"] for name, dashboard in _DASHBOARDS.items()} == {
        "overview": "SovereignCore: System Overview",
        "api": "SovereignCore: API Performance",
        "redis": "SovereignCore: Redis Monitoring",
        "business": "SovereignCore: Business Metrics",
    }
    uids = [dashboard["uid"] for dashboard in _DASHBOARDS.values()]
    assert len(set(uids)) == len(uids)


@pytest.mark.parametrize("name", sorted(_DASHBOARDS))
def test_a_dashboard_asks_whatever_prometheus_it_is_given(name: str) -> None:
    dashboard = _DASHBOARDS[name]
    variables = {each["name"]: each["type"] for each in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource"}
    for panel in dashboards.panels_of(dashboard):
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("name", sorted(_DASHBOARDS))
def test_every_panel_says_what_it_shows_and_in_what_unit(name: str) -> None:
    panels = _DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(dashboards.panels_of(_DASHBOARDS[name])) >= 15
    for panel in dashboards.panels_of(_DASHBOARDS[name]):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["title"]
        assert len(panel["description"]) > 15, panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults["thresholds"]["steps"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references)
    titles = [(panel["type"], panel["title"]) for panel in panels]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", sorted(_DASHBOARDS))
def test_panels_lie_beside_each_other(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in _DASHBOARDS[name]["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells


def test_panels_name_metrics_that_exist() -> None:
    named = {
        name
        for query in dashboards.all_queries()
        for name in dashboards.metrics_in(query.expression)
    }
    assert len(named) > 60
    assert _unknown(named) == set()


def test_every_metric_of_the_platform_is_looked_at() -> None:
    """By a panel or a rule: what nobody looks at need not be measured."""
    expressions = [query.expression for query in dashboards.all_queries()]
    expressions += [rule["expr"] for rule in deployed.all_rules()]
    named = {name for each in expressions for name in dashboards.metrics_in(each)}
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    ours = set(re.findall(r"^\| `(sovereigncore_\w+)`", page, flags=re.MULTILINE))
    looked_at = {name for name in ours if any(each.startswith(name) for each in named)}
    assert sorted(ours - looked_at) == []


def test_a_hurry_divides_ranges_and_ages_and_nothing_else() -> None:
    hurry = deployed.Hurry(windows=30, ages=15)
    for shipped, faster in (
        ("rate(x_total[5m]) > 0.05", "rate(x_total[10000ms]) > 0.05"),
        ("rate(x_total[1m]) >= 20", "rate(x_total[4000ms]) >= 20"),  # two scrapes must fit in
        ("max(x_age_seconds) > 300", "max(x_age_seconds) > 20"),
        (
            "time() - max(x_timestamp_seconds) > 26 * 3600",
            "time() - max(x_timestamp_seconds) > 1.73333 * 3600",
        ),
        ("x_expiry - time() < 14 * 86400", "x_expiry - time() < 14 * 86400"),
        ("x:duration_seconds:p95_5m > 10", "x:duration_seconds:p95_5m > 10"),
    ):
        assert deployed.in_a_hurry(shipped, hurry) == faster
        assert deployed.in_a_hurry(shipped, deployed.Hurry()) == shipped
