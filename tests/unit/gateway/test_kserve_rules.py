"""What Modelium answers itself of KServe's v2 protocol: readiness, the index, and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelium.errors import InvalidBody, Refused, RequestError
from modelium.gateway.kserve import rules
from modelium.values import ModelStatus, State, Target, Task

from .stand_in import profile_of, status_of


def model(state: State, **changes: object) -> ModelStatus:
    return replace(status_of(profile_of(Task.TEXT_CLASSIFICATION), state=state), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(State))
def test_a_model_that_can_be_loaded_is_ready(state: State) -> None:
    here = model(state, quarantined=state is State.FAILED)
    why = rules.why_not_ready(here, "", "can_load")
    assert (why is None) is (state not in (State.INCOMPLETE, State.UNSUPPORTED, State.FAILED))
    assert why is None or "serving" in why  # its reason


def test_a_failed_model_is_ready_again_when_a_request_would_try_it() -> None:
    assert rules.why_not_ready(model(State.FAILED, retry_in_s=2.5), "", "can_load") is not None
    assert rules.why_not_ready(model(State.FAILED, retry_in_s=0.0), "1", "can_load") is None
    assert rules.why_not_ready(model(State.FAILED, quarantined=True), "1", "can_load") is not None


@pytest.mark.parametrize("state", list(State))
def test_loaded_is_tritons_own_meaning(state: State) -> None:
    assert (rules.why_not_ready(model(state), "1", "loaded") is None) is state.serves


def test_there_is_one_version() -> None:
    assert "version 1 alone" in (rules.why_not_ready(model(State.LOADED), "2", "can_load") or "")


def test_an_index_speaks_tritons_words() -> None:
    rows = {state: rules.index_row(model(state)) for state in State}
    assert {row.state for row in rows.values()} == {"READY", "LOADING", "UNLOADING", "UNAVAILABLE"}
    assert rows[State.LOADED] == rules.IndexRow(name="m", version="1", state="READY", reason="")
    assert rows[State.UNLOADED].reason == "UNLOADED: serving"


@pytest.mark.parametrize("parameter", ["config", "file:1/model.onnx"])
def test_what_would_change_an_entry_is_refused_with_the_reason(parameter: str) -> None:
    with pytest.raises(RequestError, match=r"failed to load .*would replace its entry"):
        rules.check_parameters("load", "m", ["unload_dependents", parameter])


def test_an_unknown_parameter_is_told() -> None:
    rules.check_parameters("unload", "m", ["unload_dependents"])
    with pytest.raises(RequestError, match="no parameter 'x'"):
        rules.check_parameters("load", "m", ["x"])


def test_an_adapter_is_asked_by_a_parameter() -> None:
    assert rules.model_called(Target(model="m")) == "m"
    with pytest.raises(InvalidBody, match="lora_name"):
        rules.model_called(Target(model="m", adapter="a"))


def test_what_reaches_into_the_machine_is_refused_and_says_what_to_do() -> None:
    rules.check_shared_memory(True)
    with pytest.raises(Refused, match=r"gateway\.shared_memory"):
        rules.check_shared_memory(False)
    assert "own port" in str(rules.tracing_refused()) and "own port" in str(rules.logging_refused())
