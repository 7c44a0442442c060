"""Prometheus' configuration and rules: promtool takes them, they ask for what there is, and each alert is proven both ways."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from modelium.metrics import FAMILIES
from modelium.metrics.families import AGE_BUCKETS
from modelium.values import State
from tests import metric_names
from tests.monitoring import (
    PROMETHEUS,
    ROOT,
    RULES,
    Alert,
    alerts,
    labels_asked,
    names_in,
    panels,
    promtool,
    recorded,
    rules,
)
from tests.unit.test_docs import anchor

TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
of_every_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)


def configuration(name: str) -> Any:
    return yaml.safe_load((PROMETHEUS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_promtool_takes_the_configuration_and_its_rules(name: str) -> None:
    promtool("check", "config", PROMETHEUS / name)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_promtools_own_tests_of_the_rules_pass(path: Any) -> None:
    promtool("test", "rules", path)


def test_the_two_configurations_differ_in_their_targets_alone() -> None:
    both = [configuration(name) for name in ("prometheus.yml", "local.yml")]
    for one in both:
        assert [job["job_name"] for job in one["scrape_configs"]] == ["modelium", "triton", "prometheus"]
        for job in one["scrape_configs"]:
            [targets] = job["static_configs"]
            assert len(targets.pop("targets")) == 1
    assert both[0] == both[1]


def test_the_rules_are_the_files_that_are_tested() -> None:
    assert [path.name for path in RULES] == ["alerts.yml", "recording.yml"]
    for path in TESTS:
        assert configuration(f"tests/{path.name}")["rule_files"] == ["../rules/recording.yml", "../rules/alerts.yml"]


# -- what the rules ask for ----------------------------------------------------------------------------------------------


def test_the_names_in_an_expression_are_found_and_nothing_else() -> None:
    expr = 'sum by (a, le) (rate(x_total{b="c, d"}[5m] offset 1h)) / on (a) group_left y:z > 1e6 or vector(0) and count(vllm:n)'
    assert names_in(expr) == {"x_total", "y:z", "vllm:n"}
    assert list(labels_asked('x{a="1", b!~"2|3"} / y{} + z')) == [("x", "a", "1"), ("x", "b", "2|3")]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_metrics_and_labels_that_there_are(rule: dict[str, Any]) -> None:
    asked = names_in(rule["expr"])
    assert asked, "no metric was found in it"
    assert asked <= metric_names.every() | recorded().keys()
    families = {family.name: family for family in FAMILIES}
    for name, label, value in labels_asked(rule["expr"]):
        family = families.get(name.removesuffix("_bucket"))
        if family is not None and label != "job":
            assert label in (*family.labels, "le"), f"{name} has no label {label}"
        if label == "le":
            assert float(value) in AGE_BUCKETS and str(float(value)) == value
        if label == "state":
            assert value in set(State)


def test_a_recorded_series_is_named_by_what_is_left_of_it_and_used() -> None:
    asked = {name for rule in rules() for name in names_in(rule["expr"])}
    asked |= {name for panel in panels() for expr, _ in panel.queries for name in names_in(expr)}
    for name, expr in recorded().items():
        level, _, _ = name.split(":")
        by = re.findall(r"by \(([^)]*)\)", expr)
        left = {"model": "instance, model", "instance": "instance", "device": "instance, device"}[level]
        assert {names.removesuffix(", le") for names in by} <= {left}, name
        assert name in asked


# -- alerts --------------------------------------------------------------------------------------------------------------


@of_every_alert
def test_an_alert_says_how_bad_it_is_what_happened_and_what_to_do(alert: Alert) -> None:
    assert alert.severity in ("critical", "warning")
    assert re.fullmatch(r"30s|[1-9]\d*m|1h", alert.wait)
    assert set(alert.annotations) == {"summary", "description", "runbook"}
    assert alert.annotations["summary"].endswith(".") and len(alert.annotations["summary"]) < 120
    assert alert.annotations["description"].endswith(".")


@of_every_alert
def test_an_alerts_runbook_is_there_and_in_the_table(alert: Alert) -> None:
    file, _, fragment = alert.annotations["runbook"].partition("#")
    page = (ROOT / file).read_text(encoding="utf-8")
    assert fragment == alert.name.lower()
    assert fragment in {anchor(heading) for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    assert f"| [{alert.name}](#{fragment}) | {alert.severity} | {alert.wait} |" in page


def test_the_page_has_no_other_alerts() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| \[(\w+)\]", page, re.MULTILINE)) == {alert.name for alert in alerts()}


@of_every_alert
def test_an_alert_is_proven_to_fire_and_not_to_fire(alert: Alert) -> None:
    """By promtool, on made-up series; here only that there is such a test."""
    checks = [
        check
        for path in TESTS
        for test in configuration(f"tests/{path.name}")["tests"]
        for check in test["promql_expr_test"]
        if re.search(rf'alertname=~?"[^"]*\b{alert.name}\b', check["expr"])
    ]
    assert any(f'alertname="{alert.name}", alertstate="firing"' in s["labels"] for c in checks for s in c["exp_samples"])
    assert any(not check["exp_samples"] for check in checks)


def test_panels_speak_of_alerts_that_there_are_and_draw_their_limits() -> None:
    by_name = {alert.name: alert for alert in alerts()}
    for panel in panels():
        defaults = panel.json["fieldConfig"]["defaults"]
        watched_by = re.findall(r"Alert: (\w+)", panel.json["description"])
        limits_of = re.findall(r"The line is the limit of (\w+)", panel.json["description"])
        assert {*watched_by, *limits_of} <= by_name.keys(), panel.id
        drawn = defaults["custom"].get("thresholdsStyle", {}).get("mode") == "dashed"
        assert len(limits_of) == drawn, panel.id
        for name in limits_of:
            assert f"> {defaults['thresholds']['steps'][-1]['value']:g}" in by_name[name].expr, panel.id
