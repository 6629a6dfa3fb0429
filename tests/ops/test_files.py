"""What Prometheus' and Alertmanager's own tools say of the shipped files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ops import deployed
from tests.ops.programs import check

pytestmark = pytest.mark.ops

_CONFIG = deployed.DEPLOY / "alertmanager/alertmanager.yml"
_TESTS = sorted((deployed.DEPLOY / "prometheus/tests").glob("*.yml"))


@pytest.mark.parametrize("folder", ["prometheus", "compose"])
def test_prometheus_accepts_its_configuration(folder: str) -> None:
    # Without the token's file, which is the operator's to write.
    check(
        "promtool",
        "check",
        "config",
        "--syntax-only",
        deployed.DEPLOY / folder / "prometheus.yml",
    )


def test_prometheus_accepts_the_rules() -> None:
    said = check("promtool", "check", "rules", "--lint=all", "--lint-fatal", *deployed.rule_files())
    assert said.count("SUCCESS") == len(deployed.rule_files())


@pytest.mark.parametrize("path", _TESTS, ids=lambda path: path.stem)
def test_alerts_fire_and_stay_quiet(path: Path) -> None:
    assert "SUCCESS" in check("promtool", "test", "rules", path)


def test_blackbox_exporter_accepts_its_configuration() -> None:
    path = deployed.DEPLOY / "prometheus/blackbox.yml"
    check("prometheus-blackbox-exporter", "--config.check", f"--config.file={path}")


def test_alertmanager_accepts_its_configuration() -> None:
    assert "SUCCESS" in check("amtool", "check-config", _CONFIG)


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "urgent"), ("warning", "email"), ("", "email")]
)
def test_alerts_are_routed_by_severity(severity: str, receiver: str) -> None:
    labels = ["alertname=APIDown", f"severity={severity}"]
    said = check(
        "amtool", "config", "routes", "test", f"--config.file={_CONFIG}",
        f"--verify.receivers={receiver}", *labels,
    )  # fmt: skip
    assert receiver in said.split()
