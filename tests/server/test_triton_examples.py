"""The examples of Triton's client repository at the gateway's ports, each with its models unloaded when it begins.

They are written anew (``tests/server/examples``). Two models are not those of upstream: its sequences add up inside a
stateful model, of which Modelium serves none, and its ensemble is an entry written by hand. ``simple_grpc_custom_repeat`` asks
a language model, in ``test_kserve_grpc_decoupled.py``.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import tritonclient.grpc
import tritonclient.http

from tests.server.examples import either, grpc, http
from tests.server.examples.models import write_example_models
from tests.server.systems import System, system

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

_OF_BOTH = {
    "simple_{}_string_infer_client": either.string_infer,
    "simple_{}_shm_client": either.shm,
    "simple_{}_shm_string_client": either.shm_string,
    "simple_{}_cudashm_client": either.cudashm,
    "simple_{}_health_metadata": either.health_metadata,
    "simple_{}_model_control": either.model_control,
    "simple_{}_sequence_sync_infer_client": either.sequence_sync_infer,
    "reuse_infer_objects_client ({})": either.reuse_infer_objects,
    "{}_image_client": either.image,
}
EXAMPLES: dict[str, Callable[[str], Any]] = {
    **{name.format("http"): partial(each, tritonclient.http) for name, each in _OF_BOTH.items()},
    "simple_http_infer_client": http.infer,
    "simple_http_async_infer_client": http.async_infer,
    "simple_http_aio_infer_client": http.aio_infer,
    "generate_request_body, parse_response_body": http.generic_body,
    **{name.format("grpc"): partial(each, tritonclient.grpc) for name, each in _OF_BOTH.items()},
    "simple_grpc_infer_client": grpc.infer,
    "simple_grpc_async_infer_client": grpc.async_infer,
    "simple_grpc_aio_infer_client": grpc.aio_infer,
    "simple_grpc_sequence_stream_infer_client": grpc.sequence_stream_infer,
    "simple_grpc_aio_sequence_stream_infer_client": grpc.aio_sequence_stream_infer,
    "simple_grpc_custom_args_client": grpc.custom_args,
    "simple_grpc_keepalive_client": grpc.keepalive,
    "grpc_client": grpc.grpc_client,
    "grpc_explicit_int_content_client": grpc.explicit_int_content,
    "grpc_explicit_int8_content_client": grpc.explicit_int8_content,
    "grpc_explicit_byte_content_client": grpc.explicit_byte_content,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modelium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    directory = tmp_path_factory.mktemp("examples")
    async with system(directory, gateway={"shared_memory": True}, orchestration={"load_on_discovery": False}) as running:
        for name in write_example_models(running.incoming):
            await running.becomes(name, "UNLOADED")
        yield running


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_passes_at_the_gateway(modelium: System, name: str) -> None:
    for model in (await modelium.get("/models"))["models"]:
        if model["state"] != "UNLOADED":
            assert (await modelium.post(f"/models/{model['name']}/unload"))[0] == 200
    example = EXAMPLES[name]
    url = modelium.running.grpc_url if "grpc" in name else urlsplit(modelium.running.gateway_url).netloc
    if inspect.iscoroutinefunction(example):
        await example(url)
    else:
        await asyncio.to_thread(example, url)
    await modelium.until("/models", lambda seen: not any(model["leases"] for model in seen["models"]), "no lease is left")
