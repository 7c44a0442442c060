"""Grafana's words: dashboards, rows and panels as values enter, the JSON that Grafana provisions leaves.

The JSON is schema version 39 (Grafana 10.4 and newer migrate it by themselves). A panel that leaves something out gets
Grafana's default, so what is written is what somebody decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

DATASOURCE: dict[str, Json] = {"type": "prometheus", "uid": "modelium-prometheus"}
_SCHEMA_VERSION = 39
_WIDTH = 24  # of every dashboard, in Grafana's columns


class Unit(StrEnum):
    """Grafana's names of the units that a panel may have; ``suffix:`` is for those that it does not know."""

    BYTES = "bytes"
    SECONDS = "s"
    SHARE = "percentunit"
    PER_SECOND = "reqps"
    TOKENS_PER_SECOND = "suffix: tok/s"
    COUNT = "short"
    ROWS = "suffix: rows"
    WATTS = "watt"


class Color(StrEnum):
    GREEN = "green"
    YELLOW = "yellow"
    ORANGE = "orange"
    RED = "red"
    BLUE = "blue"
    GREY = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One PromQL expression. ``legend`` may name labels: ``{{model}}``. An ``instant`` one is asked for now alone."""

    expr: str
    legend: str = ""
    instant: bool = False
    format: Literal["time_series", "table", "heatmap"] = "time_series"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """From ``at`` on a value has ``color``."""

    at: float
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel; ``panels.py`` makes them. ``words`` are shown in the place of values, with a colour each."""

    kind: str
    title: str
    description: str
    unit: Unit
    queries: tuple[Query, ...]
    width: int
    height: int
    calm: Color = Color.GREEN
    limits: tuple[Limit, ...] = ()
    words: Mapping[int, tuple[str, Color]] = field(default_factory=dict)
    minimum: float | None = 0
    maximum: float | None = None
    custom: Mapping[str, Json] = field(default_factory=dict)
    options: Mapping[str, Json] = field(default_factory=dict)
    transformations: tuple[Mapping[str, Json], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard: the values of ``label`` that ``metric`` has, several at a time, or all."""

    name: str
    title: str
    metric: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """``uid`` and ``file`` never change: links and bookmarks are made of them."""

    uid: str
    file: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    since: str = "now-1h"


def render(dashboard: Dashboard) -> dict[str, Json]:
    """The dashboard as Grafana's JSON."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["modelium"],
        "schemaVersion": _SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,  # one crosshair through all panels
        "refresh": "15s",
        "time": {"from": dashboard.since, "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "title": "Modelium",
                "tags": ["modelium"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": [_variable(variable) for variable in dashboard.variables]},
        "panels": list(_panels(dashboard.rows)),
    }


def _variable(variable: Variable) -> Json:
    definition = f"label_values({variable.metric}, {variable.label})"
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.title,
        "datasource": dict(DATASOURCE),
        "definition": definition,
        "query": {"qryType": 1, "query": definition, "refId": variable.name},
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels(rows: tuple[Row, ...]) -> Iterator[Json]:
    """Rows one below the other; the panels of a row from left to right, going on below where the width is used up."""
    y = number = 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, number: int, place: dict[str, Json]) -> Json:
    steps: list[Json] = [{"color": panel.calm, "value": None}]
    steps += [{"color": limit.color, "value": limit.at} for limit in panel.limits]
    defaults: dict[str, Json] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": _mappings(panel.words),
        "custom": dict(panel.custom),
    }
    bounds = {"min": panel.minimum, "max": panel.maximum}
    defaults |= {name: bound for name, bound in bounds.items() if bound is not None}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": dict(DATASOURCE),
        "gridPos": place,
        "targets": [_target(query, letter) for query, letter in zip(panel.queries, "ABCDEFGH", strict=False)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": dict(panel.options),
        "transformations": [dict(one) for one in panel.transformations],
    }


def _mappings(words: Mapping[int, tuple[str, Color]]) -> list[Json]:
    if not words:
        return []
    options: dict[str, Json] = {
        str(value): {"text": text, "color": color, "index": index} for index, (value, (text, color)) in enumerate(words.items())
    }
    return [{"type": "value", "options": options}]


def _target(query: Query, letter: str) -> Json:
    return {
        "refId": letter,
        "datasource": dict(DATASOURCE),
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": query.format,
        "instant": query.instant,
        "range": not query.instant,
    }
