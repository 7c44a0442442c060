"""Health and reflection, which are our own, against protobuf's reading of their published definitions; errors as statuses."""

from __future__ import annotations

import inspect
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from modelium import errors
from modelium.gateway.http.statuses import STATUSES as IN_HTTP
from modelium.gateway.kserve_grpc import descriptions, health, reflection, wire
from modelium.gateway.kserve_grpc.statuses import STATUSES, in_http, status_of
from modelium.triton.passing import SERVICE, described

FILES = (*described(), descriptions.health(), descriptions.reflection("v1"), descriptions.reflection("v1alpha"))
SERVICES = (SERVICE, health.SERVICE, *reflection.SERVICES)
REFLECTION = reflection.Reflection(FILES, SERVICES)


def pool_of(files: list[bytes]) -> Any:
    pool = descriptor_pool.DescriptorPool()
    found = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in files]
    known: set[str] = set()
    while found:
        file = next(each for each in found if set(each.dependency) <= known)
        pool.Add(file)
        known.add(file.name)
        found.remove(file)
    return pool


POOL = pool_of(list(FILES))


def message(name: str) -> Any:
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


ASKED, SAID = (message(f"grpc.reflection.v1.ServerReflection{kind}") for kind in ("Request", "Response"))


def answer(**asked: object) -> Any:
    request = ASKED(host="here", **asked)
    response = SAID.FromString(REFLECTION.answer_to(request.SerializeToString()))
    assert (response.valid_host, response.original_request) == ("here", request)
    return response


def test_services_are_listed() -> None:
    assert [each.name for each in answer(list_services="*").list_services_response.service] == sorted(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_comes_with_all_that_it_needs(service: str) -> None:
    files = answer(file_containing_symbol=service).file_descriptor_response.file_descriptor_proto
    found = pool_of(list(files)).FindServiceByName(service)
    assert found.methods
    name = descriptor_pb2.FileDescriptorProto.FromString(files[0]).name
    assert answer(file_by_filename=name).file_descriptor_response.file_descriptor_proto == files


@pytest.mark.parametrize(
    "symbol",
    [
        "inference.ModelInferRequest",
        "inference.ModelInferRequest.InferInputTensor",
        "inference.GRPCInferenceService.ModelInfer",
    ],
)
def test_what_is_inside_is_found(symbol: str) -> None:
    assert answer(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto


def test_what_there_is_not_is_not_found() -> None:
    for asked in ({"file_by_filename": "x.proto"}, {"file_containing_symbol": "x"}, {"all_extension_numbers_of_type": "x"}):
        assert answer(**asked).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert answer().error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


@given(st.binary(max_size=100))
def test_any_bytes_are_answered_or_malformed(data: bytes) -> None:
    try:
        said = REFLECTION.answer_to(data)
    except wire.Malformed:
        return
    SAID.FromString(said)


@pytest.mark.parametrize("ready", [True, False])
async def test_health_is_the_controllers(ready: bool) -> None:
    probes = health.Health(lambda: ready, frozenset({SERVICE}))
    asked, said = (message(f"grpc.health.v1.HealthCheck{kind}") for kind in ("Request", "Response"))
    for service in ("", SERVICE):
        found = said.FromString(await probes.check(asked(service=service).SerializeToString(), None))
        assert found.status == (1 if ready else 2)


_NAMED = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ModeliumError)]


@pytest.mark.parametrize("kind", _NAMED, ids=lambda kind: kind.__name__)
def test_what_is_not_the_clients_fault_over_http_is_not_here(kind: type[errors.ModeliumError]) -> None:
    over_http = next(IN_HTTP[each] for each in kind.__mro__ if each in IN_HTTP)
    if status_of(kind) is not grpc.StatusCode.RESOURCE_EXHAUSTED and not issubclass(kind, errors.TritonError):
        assert (in_http(status_of(kind)) >= 500) is (over_http >= 500)


def test_every_row_is_one_of_an_error() -> None:
    assert set(STATUSES) <= set(_NAMED)
    assert status_of(errors.UnknownModel) is grpc.StatusCode.NOT_FOUND
    assert status_of(errors.LoadFailed) is grpc.StatusCode.UNAVAILABLE
    assert status_of(errors.QueueFull) is grpc.StatusCode.RESOURCE_EXHAUSTED
