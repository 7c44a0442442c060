"""Folders of transformers whose only weights are graphs: embedders, classifiers, or tensors where the graph can be neither."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from modelium.brain.placement.rooms import places_here, rooms_of
from modelium.brain.runtimes.choice import choose_runtime
from modelium.brain.runtimes.python import find_obstacle
from modelium.signatures import signature
from modelium.values import Capabilities, ModelOverride, PoolingMode, Runtime, Task, WeightFormat
from tests.unit.analyzers.folders import BERT, TOKENIZER, drop, incomplete, lay, profile, unsupported
from tests.unit.analyzers.test_other_kinds import SENTENCES
from tests.unit.brain.worlds import gpu, host, wanted

TOKENS = ("input_ids", "attention_mask")
HIDDEN: tuple[str, Sequence[str | int]] = ("last_hidden_state", ["batch", "sequence", 32])
LOGITS: tuple[str, Sequence[str | int]] = ("logits", ["batch", 2])
CLASSIFIER = {**BERT, "architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}}


def graph(output: tuple[str, Sequence[str | int]] = HIDDEN, inputs: tuple[str, ...] = TOKENS) -> bytes:
    """An ONNX file of that signature."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 8], [0.5] * 32)
    takes = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs]
    gives = helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])
    node = helper.make_node("Gather", ["w", inputs[0]], [output[0]])
    made = helper.make_model(helper.make_graph([node], "g", takes, [gives], [weight]), ir_version=9)
    data: bytes = made.SerializeToString()
    return data


def exported(folder: Path, files: Mapping[str, str | bytes], config: Mapping[str, object] = BERT) -> Path:
    return lay(folder, {"config.json": json.dumps(config), "tokenizer.json": TOKENIZER, **files})


def test_an_exported_embedder_is_an_embedder(tmp_path: Path) -> None:
    found = profile(exported(tmp_path / "m", {"onnx/model.onnx": graph(), **SENTENCES}))
    assert (found.task, found.library) == (Task.SENTENCE_SIMILARITY, "sentence-transformers")
    assert (found.weight_format, found.onnx_file, found.onnx) == (WeightFormat.ONNX, "onnx/model.onnx", None)
    assert found.pooling is not None and found.pooling.mode is PoolingMode.MEAN
    assert (found.parameters, found.weight_bytes, found.embedding_width, found.max_length) == (32, 128, 32, 512)
    assert "weights: onnx/model.onnx" in found.task_source and found.weight_files == ("onnx/model.onnx",)
    assert find_obstacle(found) == "" and [tensor.name for tensor in signature(found).outputs] == ["EMBEDDING"]
    assert choose_runtime(found, Capabilities(), ModelOverride()).runtime is Runtime.PYTHON


def test_an_exported_classifier_has_its_labels(tmp_path: Path) -> None:
    found = profile(exported(tmp_path / "m", {"model.onnx": graph(LOGITS)}, CLASSIFIER))
    assert (found.task, found.labels, found.onnx_file) == (Task.TEXT_CLASSIFICATION, ("no", "yes"), "model.onnx")


def test_torch_weights_win(tmp_path: Path) -> None:
    found = profile(drop(tmp_path / "m", files={"onnx/model.onnx": graph()}))
    assert (found.weight_format, found.onnx_file) == (WeightFormat.SAFETENSORS, "")


def test_of_several_the_most_precise_is_taken_or_the_one_that_is_named(tmp_path: Path) -> None:
    variants = ("onnx/model_q4.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx")
    folder = exported(tmp_path / "m", dict.fromkeys(variants, graph()))
    assert profile(folder).onnx_file == "onnx/model_fp16.onnx"
    chosen = profile(folder, ModelOverride(onnx_file="onnx/model_q4.onnx"))
    assert chosen.onnx_file == "onnx/model_q4.onnx"
    assert chosen.fingerprint != profile(folder).fingerprint, "its memory is another"
    told = unsupported(folder, override=ModelOverride(onnx_file="model_q8.onnx"))
    assert "'model_q8.onnx' is not in the folder" in told.why and "onnx/model_q4.onnx" in told.hint


@pytest.mark.parametrize("directory", ["", "onnx/"])
@pytest.mark.parametrize(
    "name",
    [
        "model_optimized",
        "model_O1",
        "model_O2",
        "model_O3",
        "model_O4",
        "model_optimized_quantized",
        "model_qint8_avx512",
        "mine",
    ],
)
def test_an_optimized_graph_is_one_as_any_other(tmp_path: Path, directory: str, name: str) -> None:
    file = f"{directory}{name}.onnx"
    found = profile(exported(tmp_path / "m", {file: graph(), **SENTENCES}))
    assert (found.task, found.onnx_file) == (Task.SENTENCE_SIMILARITY, file)


def test_of_the_optimized_the_one_with_whole_floats_is_taken(tmp_path: Path) -> None:
    variants = ("model_O4.onnx", "model_O2.onnx", "model_qint8_arm64.onnx", "model_fp16.onnx", "model_optimized.onnx")
    folder = exported(tmp_path / "m", dict.fromkeys(variants, graph()))
    assert profile(folder).onnx_file == "model_O2.onnx"
    lay(folder, {"model.onnx": graph()})
    assert profile(folder).onnx_file == "model.onnx"


@pytest.mark.parametrize(
    ("data", "config"),
    [
        (graph(("y", ["batch", 2])), BERT),
        (graph(inputs=(*TOKENS, "past_key_values.0.key")), BERT),
        (graph(inputs=("pixel_values",)), BERT),
        (graph(("last_hidden_state", [1, 7, 32])), BERT),
        (graph(), CLASSIFIER),
        (graph(LOGITS), BERT),
        (graph(("logits", ["batch", "sequence", 2])), {**BERT, "architectures": ["BertForTokenClassification"]}),
    ],
    ids=["another-output", "a-cache", "pictures", "fixed", "no-head", "only-a-head", "a-label-a-token"],
)
def test_what_is_no_text_encoder_for_the_task_is_served_as_tensors(
    tmp_path: Path, data: bytes, config: dict[str, object]
) -> None:
    folder = exported(tmp_path / "m", {"onnx/model.onnx": data}, config)
    found = profile(folder)
    assert (found.task, found.onnx_file) == (Task.TENSORS, "") and found.onnx is not None
    assert "onnx_file" in unsupported(folder, override=ModelOverride(onnx_file="onnx/model.onnx")).why


def test_who_wants_tensors_gets_them(tmp_path: Path) -> None:
    folder = exported(tmp_path / "m", {"onnx/model.onnx": graph()})
    assert profile(folder, ModelOverride(task=Task.TENSORS)).onnx is not None


def test_a_tokenizer_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"config.json": json.dumps(BERT), "onnx/model.onnx": graph()})
    assert "tokenizer" in incomplete(folder).why


def test_it_lies_in_host_memory_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    """The model runtime's onnxruntime is the CPU's."""
    found = profile(exported(tmp_path / "m", {"onnx/model.onnx": graph()}))
    rooms = list(rooms_of([gpu(), host()], []).values())
    view = replace(wanted("m"), profile=found)

    def devices(override: ModelOverride) -> list[str]:
        return [placement.device_id for _, placement in places_here(view, found, Runtime.PYTHON, rooms, override)]

    assert devices(ModelOverride()) == ["host"]
    assert devices(ModelOverride(device="cuda:0")) == ["cuda:0"]


@pytest.mark.parametrize(
    "more", [{}, {"config.json": json.dumps(BERT), "tokenizer.json": TOKENIZER}, {"2/model.onnx": graph()}], ids=len
)
def test_an_entry_of_triton_that_holds_a_graph_is_no_model(tmp_path: Path, more: dict[str, str | bytes]) -> None:
    folder = lay(tmp_path / "m", {"config.pbtxt": 'platform: "onnxruntime_onnx"', "1/model.onnx": graph(), **more})
    told = unsupported(folder)
    assert "Triton model repository (config.pbtxt and 1/model.onnx)" in told.why and "triton.model_repository" in told.hint


def test_a_graph_beside_a_stray_config_of_triton_is_a_model(tmp_path: Path) -> None:
    assert profile(lay(tmp_path / "m", {"config.pbtxt": "", "model.onnx": graph()})).task is Task.TENSORS
