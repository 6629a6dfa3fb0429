"""The shipped dashboards as data: their panels, and the queries that Grafana would send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.ops.deployed import DEPLOY

FOLDER = DEPLOY / "grafana/dashboards"
_METRIC = re.compile(
    r"\b(?:sovereigncore[_:]|django_|redis_|pg_|probe_|ALERTS\b|up\b)[\w:]*(?:\{[^}]*\})?"
)


@dataclass(frozen=True, kw_only=True)
class Query:
    dashboard: str
    panel: str
    expression: str
    is_instant: bool

    @property
    def name(self) -> str:
        return f"{self.dashboard}: {self.panel}"


def all_dashboards() -> dict[str, dict[str, Any]]:
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))
    }


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """All but the rows that only part them."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def all_queries() -> Iterator[Query]:
    for name, dashboard in all_dashboards().items():
        for panel in panels_of(dashboard):
            for target in panel["targets"]:
                yield Query(
                    dashboard=name,
                    panel=panel["title"],
                    expression=target["expr"],
                    is_instant=target.get("instant", False),
                )


def selectors_in(expression: str) -> list[str]:
    """The metrics that a PromQL expression reads, each with its matchers."""
    return [found[0] for found in _METRIC.finditer(expression)]


def metrics_in(expression: str) -> set[str]:
    return {selector.partition("{")[0] for selector in selectors_in(expression)}
