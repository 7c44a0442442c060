"""Who calls over gRPC: the key and the priority in a call's metadata."""

from __future__ import annotations

import contextvars
from pathlib import Path

import grpc
import pytest

from modelium.api_keys import ApiKeys
from modelium.controller.askers import ASKER
from modelium.errors import KeyQueueFull, LoadFailed, RequestError, Unauthorized
from modelium.gateway.kserve_grpc.caller import Callers, passed_on
from modelium.gateway.kserve_grpc.statuses import in_http, status_of
from modelium.gateway.places import Places
from modelium.values import Asker, Priority

KEY, LOW_KEY = "the-right-key-0123456789", "another-key-0123456789ab"


class Call:
    """A context with that metadata."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = tuple((name.replace("_", "-"), value) for name, value in metadata.items())

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def asker_of(call: Call, keys: ApiKeys | None) -> Asker:
    callers = Callers(keys, timeout_s=5, max_timeout_s=5, max_buffered_bytes=1, places=Places())

    def admit() -> Asker:
        callers.admit(call)
        return ASKER.get()

    return contextvars.copy_context().run(admit)


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    (tmp_path / "keys").write_text(f"ana: {KEY}\nbatch: {LOW_KEY} priority=low\n", encoding="utf-8")
    return ApiKeys(tmp_path / "keys")


def test_who_asks_and_how_urgently_is_known(keys: ApiKeys) -> None:
    assert asker_of(Call(authorization=f"Bearer {KEY}"), keys) == Asker("ana")
    assert asker_of(Call(x_api_key=KEY, x_priority="high"), keys) == Asker("ana", Priority.HIGH)
    assert asker_of(Call(x_priority="high", x_api_key=LOW_KEY), keys) == Asker("batch", Priority.LOW)
    assert asker_of(Call(x_priority="low"), None) == Asker("", Priority.LOW)
    assert asker_of(Call(), None) == Asker()


def test_a_word_that_is_no_priority_and_a_key_that_is_none_are_refused(keys: ApiKeys) -> None:
    with pytest.raises(RequestError, match="x-priority: expected high, normal or low, found 'urgent'"):
        asker_of(Call(x_priority="urgent"), None)
    with pytest.raises(Unauthorized):
        asker_of(Call(x_priority="high"), keys)


def test_triton_learns_neither() -> None:
    assert passed_on(Call(x_priority="high", x_api_key=KEY, x_trace="7")) == [("x-trace", "7")]


def test_a_full_queue_of_a_key_has_grpcs_word_for_it() -> None:
    assert status_of(KeyQueueFull) is grpc.StatusCode.RESOURCE_EXHAUSTED and in_http(status_of(KeyQueueFull)) == 429


def test_no_error_says_where_something_lies_on_this_machine(tmp_path: Path) -> None:
    callers = Callers(None, timeout_s=5, max_timeout_s=5, max_buffered_bytes=1, places=Places([tmp_path]))
    said = callers.words_of(LoadFailed(f"{tmp_path}/m/1/model.onnx: no such operator"), None)
    assert said == "m/1/model.onnx: no such operator"
