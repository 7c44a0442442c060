"""``infra/`` as values: rules, panels and their expressions, and Prometheus' own tools to hold them against."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = ROOT / "infra" / "prometheus"
GRAFANA = ROOT / "infra" / "grafana"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))

# Grafana's variables as a look at everything sets them; a rate over so short a time has data in a test of some seconds.
EVERYTHING = {"$__rate_interval": "15s", "$model": ".+", "$device": ".+"}

_KEYWORDS = frozenset(
    {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "inf", "nan"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A rule of alerts.yml. ``wait`` is its ``for``."""

    name: str
    expr: str
    wait: str
    severity: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel and the expressions of its queries, each with its legend ("" where that is left to Grafana)."""

    dashboard: str
    title: str
    queries: tuple[tuple[str, str], ...]
    json: Mapping[str, Any]

    @property
    def id(self) -> str:
        return f"{self.dashboard}: {self.title}"


def tool(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is. Without them these tests prove nothing, so they fail."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"there is no {name} on the PATH: `apt-get install prometheus` (Debian, Ubuntu) brings it", pytrace=False)
    return found


def promtool(*arguments: str | Path) -> None:
    """Run it; fails with all that it said."""
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[Alert]:
    return [
        Alert(
            name=rule["alert"],
            expr=rule["expr"],
            wait=rule.get("for", ""),
            severity=rule.get("labels", {}).get("severity", ""),
            annotations=rule["annotations"],
        )
        for rule in rules()
        if "alert" in rule
    ]


def recorded() -> dict[str, str]:
    """The name of each recorded series, and its expression."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in DASHBOARDS]


def panels() -> list[Panel]:
    """Every panel of every dashboard, rows left out."""
    return [
        Panel(
            dashboard=dashboard["title"].removeprefix("Modelium / "),
            title=panel["title"],
            queries=tuple((target["expr"], target["legendFormat"].removeprefix("__auto")) for target in panel["targets"]),
            json=panel,
        )
        for dashboard in dashboards()
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    ]


def substituted(expr: str) -> str:
    """The expression as Grafana sends it when everything is chosen."""
    for variable, value in EVERYTHING.items():
        expr = expr.replace(variable, value)
    return expr


def names_in(expr: str) -> set[str]:
    """The metrics that an expression asks for, however it groups, selects and computes."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", re.sub(r'"[^"]*"', '""', expr))
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    return {word for word in words if word.lower() not in _KEYWORDS}


def labels_asked(expr: str) -> Iterator[tuple[str, str, str]]:
    """Each metric with a label that a matcher of it names, and what that is compared with."""
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", expr):
        for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers):
            yield name, label, value
