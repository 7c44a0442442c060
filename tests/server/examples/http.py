"""Examples of Triton's HTTP clients alone."""

from __future__ import annotations

import http.client
from typing import Any

import pytest
import tritonclient.http as triton
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.patience import PATIENCE_S
from tests.server.examples.either import UNKNOWN, client_of, is_right, pair
from tests.server.examples.models import LEFT, RIGHT

_QUERY = {"test_1": 1, "test_2": 2}
_COMPRESSIONS = (None, "gzip", "deflate")


def _mixed() -> tuple[list[Any], list[Any]]:
    """One tensor in JSON and one in bytes, both ways."""
    inputs = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    inputs[0].set_data_from_numpy(LEFT, binary_data=False)
    inputs[1].set_data_from_numpy(RIGHT, binary_data=True)
    return inputs, [
        triton.InferRequestedOutput("OUTPUT0", binary_data=True),
        triton.InferRequestedOutput("OUTPUT1", binary_data=False),
    ]


def infer(url: str) -> None:
    inputs, outputs = _mixed()
    with client_of(triton, url) as client:
        for sent in _COMPRESSIONS:
            for answered in _COMPRESSIONS:
                packing = {"request_compression_algorithm": sent, "response_compression_algorithm": answered}
                for wanted in (outputs, None):
                    is_right(client.infer("simple", inputs, outputs=wanted, query_params=_QUERY, **packing))
        assert len(client.get_inference_statistics("simple")["model_stats"]) == 1
        with pytest.raises(InferenceServerException) as unknown:
            client.infer("wrong_model_name", inputs)
        assert unknown.value.message().startswith(UNKNOWN)


def async_infer(url: str) -> None:
    with client_of(triton, url, concurrency=4) as client:
        for asked in [client.async_infer("simple", pair(triton)) for _ in range(4)]:
            is_right(asked.get_result(timeout=PATIENCE_S))


async def aio_infer(url: str) -> None:
    inputs, outputs = _mixed()
    async with tritonclient.http.aio.InferenceServerClient(url, conn_timeout=PATIENCE_S) as client:
        for packed in _COMPRESSIONS:
            packing = {"request_compression_algorithm": packed, "response_compression_algorithm": packed}
            is_right(await client.infer("simple", inputs, outputs=outputs, query_params=_QUERY, **packing))
        is_right(await client.infer("simple", inputs))
        assert len((await client.get_inference_statistics("simple"))["model_stats"]) == 1
        with pytest.raises(InferenceServerException, match=UNKNOWN):
            await client.infer("wrong_model_name", inputs)


def generic_body(url: str) -> None:
    """A body that the client's library makes and reads, sent by any HTTP client."""
    inputs, outputs = _mixed()
    body, header_length = triton.InferenceServerClient.generate_request_body(inputs, outputs=outputs)
    host, _, port = url.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    connection.request("POST", "/v2/models/simple/infer", body, {"Inference-Header-Content-Length": str(header_length)})
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 200
    length = int(answer.headers["Inference-Header-Content-Length"])
    is_right(triton.InferenceServerClient.parse_response_body(said, header_length=length))
    connection.close()
