"""What is told of models in JSON: each name in one place, written and read back as the same, in the order that clients see."""

from __future__ import annotations

import ast
import re
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import orjson
import pytest

from modelium import views
from modelium.cli import replies
from modelium.gateway.status import page
from modelium.values import ModelStatus
from modelium.views import written
from modelium.views.listing import Device
from tests.unit.cli.test_cli_language import SERVED
from tests.unit.cli.test_cli_ray_remote import IRIS
from tests.unit.cli.test_cli_remote import COPYING, FAILED, KEPT, LOADED, SNAPSHOT
from tests.unit.views import snapshot_view

ROOT = Path(__file__).resolve().parents[2]
ALL = [kind for kind in vars(views).values() if is_dataclass(kind) and kind is not views.Described]
SUMMARY = (
    "name label state reason profile runtime device devices estimated_bytes measured_bytes replicas qps idle_s leases waiting "
    "requests pinned adapters base load_seconds"
)
REST = "path missing failures retry_in_s quarantined revision_error loads unloads placement decisions"


@pytest.mark.parametrize("status", [LOADED, COPYING, FAILED, IRIS, SERVED], ids=lambda status: status.name)
def test_what_is_written_is_read_back(status: ModelStatus) -> None:
    sent = orjson.dumps(written(views.Status, status, 50.0))
    assert orjson.loads(orjson.dumps(asdict(replies.model(sent)))) == orjson.loads(sent)
    summary = replies.model(orjson.dumps(written(views.Summary, status)))
    assert (summary.name, summary.state, summary.devices) == (status.name, status.state, replies.model(sent).devices)


def test_clients_see_the_names_in_their_order() -> None:
    for sent, known in (
        (written(views.Summary, LOADED), SUMMARY),
        (written(views.Status, LOADED), f"{SUMMARY} {REST}"),
        (snapshot_view(SNAPSHOT), "models devices triton ray scanned directories unclaimed"),
        (written(views.Decision, KEPT), "model verb rule reason device age_s"),
    ):
        assert [name for name in sent if name in known.split()] == known.split()  # more may come


def test_an_instant_is_told_as_an_age() -> None:
    told = written(views.Decision, KEPT, KEPT.at + 2.5), written(views.Decision, KEPT, KEPT.at - 1)
    assert [decision["age_s"] for decision in told] == [2.5, 0.0]


def test_the_page_shows_what_there_is() -> None:
    known = {
        "model": views.Summary,
        "device": Device,
        "reply": views.Listing,
        "ray": views.Ray,
        "triton": views.Server,
        "profile": views.Profile,
        "nursery": views.Nursery,
    }
    shown = re.findall(rf"\b({'|'.join(known)})\??\.([a-z_]+)\b(?!\()", page._SCRIPT)
    assert len(shown) > 20
    for kind, name in shown:
        assert name in {field.name for field in fields(known[kind])}, f"the page shows {kind}.{name}"


def test_names_with_a_unit_are_spelled_in_one_place() -> None:
    names = {field.name for view in ALL for field in fields(view) if "_" in field.name}
    others = {ROOT / "modelium/cli/offline.py"}  # ``inspect --json`` has fields of its own
    for path in sorted({*(ROOT / "modelium/gateway/status").glob("*.py"), *(ROOT / "modelium/cli").glob("*.py")} - others):
        said = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not said & names, f"{path.name} spells {said & names}"
