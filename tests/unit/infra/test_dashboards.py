"""Grafana's dashboards: what the generator writes, well-formed, and every query about metrics that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import metric_names
from tests.monitoring import (
    DASHBOARDS,
    EVERYTHING,
    GRAFANA,
    PROMETHEUS,
    ROOT,
    Panel,
    dashboards,
    labels_asked,
    names_in,
    panels,
    promtool,
    recorded,
    substituted,
)
from tests.patience import PATIENCE_S

of_every_panel = pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel.id)
of_every_dashboard = pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard["uid"])


def test_the_files_are_what_the_generator_writes() -> None:
    script = [sys.executable, "scripts/write_dashboards.py", "--check"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, f"`make generate` is due {done.stderr}"


def test_there_are_four_and_each_has_its_own_uid() -> None:
    assert [path.stem for path in DASHBOARDS] == ["cold-starts", "memory", "model", "overview"]
    assert {dashboard["uid"] for dashboard in dashboards()} == {f"modelium-{path.stem}" for path in DASHBOARDS}


@of_every_dashboard
def test_panels_have_their_own_numbers_and_places(dashboard: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["x"] + place["w"] <= 24
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
    rows = [panel["gridPos"]["y"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert all(above < below for above, below in pairwise(rows))


@of_every_dashboard
def test_variables_are_those_that_are_used(dashboard: dict[str, Any]) -> None:
    used = set(re.findall(r"\$(\w+)", " ".join(t["expr"] for p in dashboard["panels"] for t in p.get("targets", ()))))
    made = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert used - {"__rate_interval"} == made
    for variable in dashboard["templating"]["list"]:
        [metric] = re.findall(r"^label_values\((\w+), \w+\)$", variable["definition"])
        assert metric in metric_names.modelium()
        assert f"${variable['name']}" in EVERYTHING and variable["allValue"] == ".+"


@of_every_panel
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: Panel) -> None:
    assert panel.json["description"].endswith(".")
    assert panel.json["fieldConfig"]["defaults"]["unit"]
    assert panel.queries
    for target in panel.json["targets"]:
        assert target["datasource"] == panel.json["datasource"] == {"type": "prometheus", "uid": "modelium-prometheus"}
    assert len({target["refId"] for target in panel.json["targets"]}) == len(panel.queries)


@of_every_panel
def test_a_panel_asks_for_metrics_that_there_are(panel: Panel) -> None:
    for expr, _ in panel.queries:
        asked = names_in(substituted(expr))
        assert asked, expr
        assert asked <= metric_names.every() | recorded().keys()


@of_every_panel
def test_a_panel_names_no_model_and_no_device(panel: Panel) -> None:
    for expr, _ in panel.queries:
        for _, label, value in labels_asked(expr):
            assert label not in ("model", "device", "instance") or value in ("$model", "$device", ".+")


def test_promtool_takes_every_query(tmp_path: Path) -> None:
    """As rules, the only expressions that it reads from a file."""
    exprs = [substituted(expr) for panel in panels() for expr, _ in panel.queries]
    made = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    promtool("check", "rules", path)


def test_provisioning_knows_the_dashboards_datasource_and_the_scrapes() -> None:
    [datasource] = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    scraped = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (datasource["type"], datasource["uid"]) == ("prometheus", "modelium-prometheus")
    assert datasource["jsonData"]["timeInterval"] == scraped
    [provider] = yaml.safe_load((GRAFANA / "provisioning/dashboards/modelium.yaml").read_text())["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
