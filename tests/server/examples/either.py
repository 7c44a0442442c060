"""Examples that there are for HTTP and for gRPC, with the same calls of both clients: ``triton`` is the one or the other."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, shared_memory, triton_to_np_dtype

from tests.patience import PATIENCE_S
from tests.server.examples.models import LEFT, RIGHT, Array, words

_KINDS = {"int8": "INT8", "int32": "INT32", "object": "BYTES"}
_HTTP: dict[str, Any] = {"connection_timeout": PATIENCE_S, "network_timeout": PATIENCE_S}
UNKNOWN = "Request for unknown model"


@contextmanager
def client_of(triton: ModuleType, url: str, **more: Any) -> Iterator[Any]:
    with triton.InferenceServerClient(url, **(_HTTP if triton is tritonclient.http else {}), **more) as made:
        yield made


def given(triton: ModuleType, **arrays: Array) -> list[Any]:
    """Tensors as a client sends them."""
    made = []
    for name, array in arrays.items():
        made.append(triton.InferInput(name, array.shape, _KINDS[array.dtype.name]))
        made[-1].set_data_from_numpy(array)
    return made


def pair(triton: ModuleType) -> list[Any]:
    return given(triton, INPUT0=LEFT, INPUT1=RIGHT)


def wanted(triton: ModuleType) -> list[Any]:
    return [triton.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]


def is_right(result: Any) -> None:
    assert np.array_equal(result.as_numpy("OUTPUT0"), LEFT + RIGHT)
    assert np.array_equal(result.as_numpy("OUTPUT1"), LEFT - RIGHT)


def string_infer(triton: ModuleType, url: str) -> None:
    with client_of(triton, url) as client:
        sent = given(triton, INPUT0=words(LEFT), INPUT1=words(RIGHT))
        result = client.infer("simple_string", sent, outputs=wanted(triton))
        assert result.as_numpy("OUTPUT0").tolist() == words(LEFT + RIGHT).tolist()
        assert result.as_numpy("OUTPUT1").tolist() == words(LEFT - RIGHT).tolist()
        for text in (b"he\x00llo", b"\x00\x01\x02\x03"):
            array = np.full((1, 16), text, np.object_)
            array[:] = text
            answer = client.infer("simple_identity", given(triton, INPUT0=array)).as_numpy("OUTPUT0")
            assert answer.tolist() == array.tolist()


def shm(triton: ModuleType, url: str) -> None:
    _by_shared_memory(triton, url, "simple", LEFT, RIGHT)


def shm_string(triton: ModuleType, url: str) -> None:
    _by_shared_memory(triton, url, "simple_string", words(LEFT), words(RIGHT))


def _by_shared_memory(triton: ModuleType, url: str, model: str, left: Array, right: Array) -> None:
    def packed(array: Array) -> Array:
        return serialize_byte_tensor(array) if array.dtype == np.object_ else array

    def size(array: Array) -> int:
        return len(array.item()) if array.dtype == np.object_ else array.nbytes

    arrays = {"INPUT0": packed(left), "INPUT1": packed(right)}
    room = {"OUTPUT0": 256, "OUTPUT1": 256}
    sizes = {name: size(array) for name, array in arrays.items()} | room
    with client_of(triton, url) as client, ExitStack() as memory:
        client.unregister_system_shared_memory()
        client.unregister_cuda_shared_memory()
        regions = {name: _region(memory, client, name, size) for name, size in sizes.items()}
        for name, array in arrays.items():
            shared_memory.set_shared_memory_region(regions[name], [array])
        kind = "INT32" if left.dtype == np.int32 else "BYTES"
        inputs = [triton.InferInput(name, [1, 16], kind) for name in arrays]
        outputs = [triton.InferRequestedOutput(name) for name in room]
        for tensor in (*inputs, *outputs):
            tensor.set_shared_memory(tensor.name(), sizes[tensor.name()])
        result = client.infer(model, inputs, outputs=outputs)
        sums = []
        for name in room:
            told = result.get_output(name)
            shape, datatype = (told["shape"], told["datatype"]) if isinstance(told, dict) else (told.shape, told.datatype)
            found = shared_memory.get_contents_as_numpy(regions[name], triton_to_np_dtype(datatype), list(shape))
            sums.append(found.astype(np.int32))
        assert np.array_equal(sums, [LEFT + RIGHT, LEFT - RIGHT])
        status = client.get_system_shared_memory_status()
        rows = status if isinstance(status, list) else status.regions
        assert len(rows) == len(sizes)
        client.unregister_system_shared_memory()


def _region(memory: ExitStack, client: Any, name: str, size: int) -> Any:
    key = f"/modelium_{uuid4().hex[:12]}"
    region = shared_memory.create_shared_memory_region(name, key, size)
    memory.callback(shared_memory.destroy_shared_memory_region, region)
    client.register_system_shared_memory(name, key, size)
    return region


def cudashm(triton: ModuleType, url: str) -> None:
    """Without a GPU there is nothing to share: Triton refuses the handle in its own words, and no region is left."""
    with client_of(triton, url) as client:
        client.unregister_cuda_shared_memory()
        with pytest.raises(InferenceServerException, match="failed to register"):
            client.register_cuda_shared_memory("output0_data", b64encode(bytes(64)), 0, 64)
        status = client.get_cuda_shared_memory_status()
        assert not (status if isinstance(status, list) else status.regions)


def reuse_infer_objects(triton: ModuleType, url: str) -> None:
    """The same objects with shared memory, then without, then with it again."""
    with client_of(triton, url) as client, ExitStack() as memory:
        inputs, outputs = pair(triton), wanted(triton)
        regions = {name: _region(memory, client, name, 64) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")}
        shared_memory.set_shared_memory_region(regions["INPUT0"], [LEFT])
        shared_memory.set_shared_memory_region(regions["INPUT1"], [RIGHT])
        for shared in (True, False, True):
            for tensor, array in zip(inputs, (LEFT, RIGHT), strict=True):
                tensor.set_shared_memory(tensor.name(), 64) if shared else tensor.set_data_from_numpy(array)
            for output in outputs:
                output.set_shared_memory(output.name(), 64) if shared else output.unset_shared_memory()
            result = client.infer("simple", inputs, outputs=outputs)
            if shared:
                found = [shared_memory.get_contents_as_numpy(regions[out], np.int32, [1, 16]) for out in ("OUTPUT0", "OUTPUT1")]
                assert np.array_equal(found, [LEFT + RIGHT, LEFT - RIGHT])
            else:
                is_right(result)
        client.unregister_system_shared_memory()


def health_metadata(triton: ModuleType, url: str) -> None:
    more: dict[str, Any] = {"query_params": {"test_1": 1}} if triton is tritonclient.http else {"headers": {"test": "1"}}
    with client_of(triton, url) as client:
        assert client.is_server_live(**more) and client.is_server_ready() and client.is_model_ready("simple")
        server, model, config = (
            client.get_server_metadata(),
            client.get_model_metadata("simple", **more),
            client.get_model_config("simple"),
        )
        if triton is tritonclient.http:
            assert (server["name"], model["name"], config["name"]) == ("triton", "simple", "simple")
        else:
            assert (server.name, model.name, config.config.name) == ("triton", "simple", "simple")
        with pytest.raises(InferenceServerException, match=UNKNOWN):
            client.get_model_metadata("wrong_model_name")


def model_control(triton: ModuleType, url: str) -> None:
    """With one difference: an entry's configuration is Modelium's, so a load with another one is refused. (After an unload,
    ``is_model_ready`` is still true, because an inference would be answered, unless ``gateway.kserve_ready`` is ``loaded``.)"""
    with client_of(triton, url) as client:
        index = client.get_model_repository_index()
        states = (
            {row["name"]: row["state"] for row in index}
            if isinstance(index, list)
            else {row.name: row.state for row in index.models}
        )
        assert states["simple"] == "UNAVAILABLE" and len(states) >= 6
        client.load_model("simple")
        assert client.is_model_ready("simple")
        for config in ('"parameters": {"config": {{"max_batch_size": "16"}}}', '{"max_batch_size":"16"}'):
            with pytest.raises(InferenceServerException, match=r"failed to load 'simple'.*would replace its entry"):
                client.load_model("simple", config=config)
        with pytest.raises(InferenceServerException, match="failed to load"):
            client.load_model("simple", config="{}", files={"file:" + "A" * 256: b"a"})
        client.unload_model("simple")
        with pytest.raises(InferenceServerException, match="failed to load"):
            client.load_model("wrong_model_name")
        assert client.is_server_live()


def sequence_sync_infer(triton: ModuleType, url: str) -> None:
    """Two sequences in turns, by a number and by a text. The model keeps nothing from one request to the next, as none of
    Modelium's does: each answer is what was sent."""
    with client_of(triton, url) as client:
        for ident in (1000, str(uuid4())):
            values = [0, 11, 7, 5, 3, 2, 0, 1]
            for number, value in enumerate(values):
                marks = {"sequence_id": ident, "sequence_start": number == 0, "sequence_end": number == len(values) - 1}
                result = client.infer("simple_sequence", given(triton, INPUT=np.array([[value]], np.int32)), **marks)
                assert result.as_numpy("OUTPUT").tolist() == [[value]]


def image(triton: ModuleType, url: str) -> None:
    """``image_client`` and ``grpc_image_client``: classes instead of numbers, by Triton's own extension."""
    picture = np.stack([np.full((8, 8), level, np.float32) for level in (0.1, 0.7, 0.2)])[None]
    tensor = triton.InferInput("image", picture.shape, "FP32")
    tensor.set_data_from_numpy(picture)
    with client_of(triton, url) as client:
        config = client.get_model_config("colours")
        assert (config["max_batch_size"] if isinstance(config, dict) else config.config.max_batch_size) > 1
        result = client.infer("colours", [tensor], outputs=[triton.InferRequestedOutput("scores", class_count=2)])
        classes = [text.decode().split(":") for text in result.as_numpy("scores").ravel()]
        assert [(round(float(score), 3), index) for score, index, *_ in classes] == [(0.7, "1"), (0.2, "2")]
