"""One model's odd value never breaks a list of all."""

from __future__ import annotations

import json
from pathlib import Path

from modelium.gateway.http.answers import json_response
from modelium.values import Fleet, ModelProfile, ModelStatus, ServerStatus, Snapshot, State, Task
from tests.unit.views import snapshot_view


def sent(value: object) -> object:
    body = json_response(value).body
    assert isinstance(body, bytes)
    return json.loads(body)


def test_what_json_cannot_carry_is_turned_into_what_it_can() -> None:
    odd = {"label": "half \ud83d", "width": 10**30, "nested": [{"\udcff": (2**64, True, None, 1.5, Path("a"))}]}
    assert sent(odd) == {
        "label": "half \\ud83d",
        "width": 2**63 - 1,
        "nested": [{"\\udcff": [2**63 - 1, True, None, 1.5, "a"]}],
    }


def test_a_model_that_cannot_be_shown_is_a_row_that_says_so() -> None:
    broken = ModelProfile(name="b", path=Path("b"), task=Task.TENSORS, library="onnx", architecture="x", language=object())  # type: ignore[arg-type]
    models = (status("a"), status("b", broken), status("caf\udce9"))
    snapshot = Snapshot(now=0.0, models=models, fleet=Fleet(devices=()), server=ServerStatus())
    view = sent(snapshot_view(snapshot))
    assert isinstance(view, dict)
    first, second, third = view["models"]
    assert first["reason"] == "because"
    assert second["state"] == "UNLOADED"
    assert second["reason"].startswith("it cannot be shown (AttributeError: ")
    assert third["label"] == "caf\\udce9"


def status(name: str, profile: ModelProfile | None = None) -> ModelStatus:
    return ModelStatus(name=name, label=name, path=Path(name), state=State.UNLOADED, reason="because", profile=profile)
