"""What an entry's config.pbtxt says, for any profile and placement, and that the written text says exactly that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as pb

from modelium.errors import EntryError
from modelium.repository.config import build_config, config_text, parse_config
from modelium.repository.writing import Order
from modelium.resources import templates_directory
from modelium.signatures import signature
from modelium.values import (
    DeviceKind,
    Footprint,
    ModelOverride,
    ModelProfile,
    OnnxGraph,
    Placement,
    Pooling,
    PoolingMode,
    Runtime,
    Task,
    Tensor,
    WeightFormat,
)

TEMPLATES = {name: (templates_directory() / name / "config.pbtxt").read_text() for name in ("python", "onnxruntime")}
TYPES = ("BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES")

unicode = st.characters(codec="utf-8")
texts = st.text(unicode, max_size=30)
sizes = st.one_of(st.just(-1), st.integers(1, 2**40))
names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,60}", fullmatch=True)


@st.composite
def placements(draw: st.DrawFn, runtime: Runtime) -> Placement:
    kind = draw(st.sampled_from(DeviceKind))
    index = -1 if kind is DeviceKind.HOST else draw(st.integers(0, 15))
    return Placement(
        runtime=runtime,
        device_id="host" if index < 0 else f"cuda:{index}",
        device_kind=kind,
        device_index=index,
        footprint=Footprint(estimated_bytes=1),
        max_batch_size=draw(st.integers(0, 256)),
        instance_count=draw(st.integers(1, 4)),
        reason=draw(texts),
    )


@st.composite
def transformers_profiles(draw: st.DrawFn) -> ModelProfile:
    pooling = st.builds(Pooling, mode=st.sampled_from(PoolingMode), normalize=st.booleans())
    return ModelProfile(
        name=draw(names),
        path=Path("/models") / draw(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), max_size=20)),
        task=draw(st.sampled_from([task for task in Task if task not in (Task.TENSORS, Task.SERVE_APP)])),
        library="transformers",
        architecture=draw(texts),
        weight_format=draw(st.sampled_from([WeightFormat.SAFETENSORS, WeightFormat.PICKLE])),
        max_length=draw(st.none() | st.integers(1, 10**6)),
        embedding_width=draw(st.none() | st.integers(1, 10**5)),
        pooling=draw(st.none() | pooling),
    )


@st.composite
def onnx_profiles(draw: st.DrawFn) -> ModelProfile:
    batches = draw(st.booleans())

    def tensors(prefix: str) -> tuple[Tensor, ...]:
        shapes = draw(st.lists(st.tuples(texts, st.sampled_from(TYPES), st.lists(sizes, max_size=4)), min_size=1, max_size=4))
        first = (-1,) if batches else ()
        return tuple(
            Tensor(name=f"{prefix}{position}{name}", datatype=datatype, dims=(*first, *dims))
            for position, (name, datatype, dims) in enumerate(shapes)
        )

    return ModelProfile(
        name=draw(names),
        path=Path("/models/graph.onnx"),
        task=Task.TENSORS,
        library="onnx",
        architecture="onnx",
        weight_format=WeightFormat.ONNX,
        onnx=OnnxGraph(inputs=tensors("i"), outputs=tensors("o"), dynamic_batch=batches, opset=17),
    )


@st.composite
def models(draw: st.DrawFn) -> tuple[ModelProfile, Placement]:
    if draw(st.booleans()):
        return draw(transformers_profiles()), draw(placements(Runtime.PYTHON))
    return draw(onnx_profiles()), draw(placements(Runtime.ONNXRUNTIME))


def build(profile: ModelProfile, placement: Placement, override: ModelOverride | None = None) -> pb.ModelConfig:
    return build_config(order(profile, placement, override), TEMPLATES[placement.runtime.value])


def order(profile: ModelProfile, placement: Placement, override: ModelOverride | None = None) -> Order:
    return Order(
        profile=profile,
        placement=placement,
        source=profile.path,
        seen_by_triton=str,
        override=override or ModelOverride(),
    )


@given(models())
@settings(max_examples=50)
def test_the_written_text_parses_to_the_same_message_whatever_the_names_hold(model: tuple[ModelProfile, Placement]) -> None:
    profile, placement = model
    config = build(profile, placement)
    text = config_text(config, source=str(profile.path), what=profile.architecture, placement=placement)
    assert parse_config(text.encode().decode()) == config


@given(models())
@settings(max_examples=50)
def test_every_entry_follows_the_rules_of_triton(model: tuple[ModelProfile, Placement]) -> None:
    profile, placement = model
    config = build(profile, placement)
    tensors = signature(profile)

    assert (config.name, config.backend) == (profile.name, placement.runtime.value)
    assert [tensor.name for tensor in config.input] == [tensor.name for tensor in tensors.inputs]
    assert [tuple(tensor.dims) for tensor in config.output] == [tensor.dims for tensor in tensors.outputs]
    assert all(tensor.dims and tensor.data_type for tensor in (*config.input, *config.output))
    assert [tensor.optional for tensor in config.input] == [tensor.optional for tensor in tensors.inputs]

    assert (config.max_batch_size > 0) == tensors.batches
    assert config.HasField("dynamic_batching") == (config.max_batch_size > 1)
    assert tensors.batches or not any(tensor.HasField("reshape") for tensor in (*config.input, *config.output))

    (group,) = config.instance_group
    assert group.count == placement.instance_count
    if placement.device_kind is DeviceKind.HOST:
        assert (group.kind, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_CPU, [])
    else:
        assert (group.kind, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_GPU, [placement.device_index])

    assert [key for key, value in config.parameters.items() if value.string_value == str(profile.path)].count("model_path") == 1


@pytest.mark.parametrize("runtime", sorted(TEMPLATES))
def test_a_template_is_a_whole_entry_by_itself(runtime: str) -> None:
    config = text_format.Parse(TEMPLATES[runtime], pb.ModelConfig())
    assert config.backend == runtime
    assert config.input and config.output and config.instance_group and config.dynamic_batching.max_queue_delay_microseconds


def test_a_template_shows_exactly_the_parameters_that_are_written() -> None:
    placement = host(Runtime.PYTHON)
    written = build(embedder(), placement).parameters
    assert set(written) == set(text_format.Parse(TEMPLATES["python"], pb.ModelConfig()).parameters)
    written = build(graph(dims=(-1, 3)), host(Runtime.ONNXRUNTIME)).parameters
    assert set(written) == set(text_format.Parse(TEMPLATES["onnxruntime"], pb.ModelConfig()).parameters)


def test_an_addition_to_the_template_reaches_every_entry() -> None:
    template = TEMPLATES["onnxruntime"] + 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }'
    config = build_config(order(replace(graph(dims=(-1, 3)), path=Path("/m")), host(Runtime.ONNXRUNTIME)), template)
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "model_path": "/m",
        "intra_op_thread_count": "1",
    }


def test_parameters_of_a_sentence_embedder() -> None:
    parameters = build(embedder(), host(Runtime.PYTHON)).parameters
    assert {key: value.string_value for key, value in parameters.items()} == {
        "model_path": "/models/mini",
        "task": "sentence-similarity",
        "pooling": "mean",
        "normalize": "true",
        "max_length": "256",
        "weights": "safetensors",
        "custom_code": "false",
        "torch_threads": "0",
    }


def test_custom_code_is_allowed_by_name_only() -> None:
    allowed = build(embedder(), host(Runtime.PYTHON), ModelOverride(allow_custom_code=True))
    assert allowed.parameters["custom_code"].string_value == "true"


def test_a_scalar_travels_as_one_element_and_in_a_batch_with_a_reshape() -> None:
    batched = build(graph(dims=(-1,)), host(Runtime.ONNXRUNTIME)).input[0]
    assert (list(batched.dims), batched.HasField("reshape"), list(batched.reshape.shape)) == ([1], True, [])
    alone = build(graph(dims=(), dynamic_batch=False), host(Runtime.ONNXRUNTIME)).input[0]
    assert (list(alone.dims), alone.HasField("reshape")) == ([1], False)


def test_line_breaks_in_a_path_or_a_reason_do_not_become_configuration() -> None:
    placement = host(Runtime.PYTHON, reason='it fits\nbackend: "evil"\u2028\x85\r')
    config = build(embedder(), placement)
    text = config_text(config, source='/models/a\nbackend: "evil"', what="m", placement=placement)
    assert parse_config(text).backend == "python"
    assert all(line.startswith("#") for line in text.split("\n") if "evil" in line)


@pytest.mark.parametrize(
    ("profile_of", "words"),
    [
        (lambda: embedder(name="../x"), "cannot name a model"),
        (lambda: embedder(name=".hidden"), "cannot name a model"),
        (lambda: graph(dims=(-1, 0)), "Triton takes -1 or at least 1"),
        (lambda: graph(dims=(-1, 3), datatype="COMPLEX64"), "Triton cannot carry"),
        (lambda: embedder(path=Path("/models/caf\udce9")), "UTF-8"),
    ],
)
def test_what_triton_would_refuse_is_refused_with_a_sentence(profile_of: object, words: str) -> None:
    assert callable(profile_of)
    profile = profile_of()
    with pytest.raises(EntryError, match=words):
        build(profile, host(Runtime.PYTHON if profile.onnx is None else Runtime.ONNXRUNTIME))


def test_a_fault_in_a_template_names_its_line() -> None:
    with pytest.raises(EntryError, match=r"python runtime does not parse: 1:1 .*bakend"):
        build_config(order(embedder(), host(Runtime.PYTHON)), 'bakend: "python"')


def host(runtime: Runtime, reason: str = "") -> Placement:
    return Placement(
        runtime=runtime,
        device_id="host",
        device_kind=DeviceKind.HOST,
        device_index=-1,
        footprint=Footprint(estimated_bytes=1),
        max_batch_size=8,
        reason=reason,
    )


def embedder(name: str = "mini", path: Path = Path("/models/mini")) -> ModelProfile:
    return ModelProfile(
        name=name,
        path=path,
        task=Task.SENTENCE_SIMILARITY,
        library="sentence-transformers",
        architecture="BertModel",
        max_length=256,
        embedding_width=384,
        pooling=Pooling(mode=PoolingMode.MEAN, normalize=True),
    )


def graph(dims: tuple[int, ...], *, datatype: str = "FP32", dynamic_batch: bool = True) -> ModelProfile:
    tensor = (Tensor(name="t", datatype=datatype, dims=dims),)
    return ModelProfile(
        name="graph",
        path=Path("/models/graph.onnx"),
        task=Task.TENSORS,
        library="onnx",
        architecture="onnx",
        weight_format=WeightFormat.ONNX,
        onnx=OnnxGraph(inputs=tensor, outputs=tensor, dynamic_batch=dynamic_batch, opset=17),
    )
