"""Entries of language models: what Triton's own vLLM backend reads, and nothing that it would refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from modelium.errors import EntryError
from modelium.repository import ModelRepository, entry_basis
from modelium.repository.config import parse_config
from modelium.resources import templates_directory
from modelium.signatures import VLLM
from modelium.values import (
    Adapter,
    DeviceKind,
    EnginePlan,
    Footprint,
    JsonValue,
    ModelProfile,
    Placement,
    PlanLine,
    Runtime,
    Task,
    WeightFormat,
)

ARGS: dict[str, JsonValue] = {
    "dtype": "bfloat16",
    "max_model_len": 4096,
    "gpu_memory_utilization": 0.3125,
    "enforce_eager": False,
}


def engine(*devices: str, args: dict[str, JsonValue] = ARGS, adapters: tuple[Adapter, ...] = ()) -> EnginePlan:
    return EnginePlan(
        engine_args=args,
        devices=devices,
        gpus=tuple(int(device.removeprefix("cuda:")) for device in devices if device != "host"),
        max_model_len=4096,
        max_num_seqs=16,
        weight_bytes=2**30,
        kv_bytes=2**30,
        kv_bytes_per_token=131_072,
        kv_tokens=8192,
        activation_bytes=2**20,
        graph_bytes=0,
        overhead_bytes=2**20,
        adapters=adapters,
    )


def placed(plan: EnginePlan | None) -> Placement:
    first = plan.devices[0] if plan is not None else "host"
    return Placement(
        runtime=Runtime.VLLM,
        device_id=first,
        device_kind=DeviceKind.HOST if first == "host" else DeviceKind.CUDA,
        device_index=-1 if first == "host" else int(first.removeprefix("cuda:")),
        footprint=Footprint(estimated_bytes=1),
        max_batch_size=8,
        instance_count=2,
        engine=plan,
    )


def llama(path: Path = Path("/models/llama"), weights: WeightFormat = WeightFormat.SAFETENSORS) -> ModelProfile:
    return ModelProfile(
        name="llama",
        path=path,
        task=Task.TEXT_GENERATION,
        library="transformers",
        architecture="LlamaForCausalLM",
        weight_format=weights,
        is_llm=True,
        fingerprint="1",
    )


def written(tmp_path: Path, profile: ModelProfile, placement: Placement, **mapping: str) -> tuple[pb.ModelConfig, Path]:
    entry = ModelRepository(tmp_path / "repository", path_mapping=mapping).write(profile, placement)
    return parse_config((entry / "config.pbtxt").read_text(encoding="utf-8")), entry / "1"


def read(file: Path) -> object:
    return json.loads(file.read_text(encoding="utf-8"))


# -- config.pbtxt ----------------------------------------------------------------------------------------------------


def test_an_entry_says_what_the_backend_would_have_completed(tmp_path: Path) -> None:
    config, _ = written(tmp_path, llama(), placed(engine("host")))
    assert (config.name, config.backend, config.max_batch_size) == ("llama", "vllm", 0)
    assert config.model_transaction_policy.decoupled
    assert not config.HasField("dynamic_batching")
    types = {"BYTES": pb.TYPE_STRING, "BOOL": pb.TYPE_BOOL, "FP32": pb.TYPE_FP32, "UINT32": pb.TYPE_UINT32}
    for made, tensors in ((config.input, VLLM.inputs), (config.output, VLLM.outputs)):
        assert [(t.name, t.data_type, tuple(t.dims)) for t in made] == [(t.name, types[t.datatype], t.dims) for t in tensors]
    assert [t.name for t in config.input if not t.optional] == ["text_input"]


@pytest.mark.parametrize(
    ("devices", "kind", "gpus", "pinned"),
    [
        (("host",), pb.ModelInstanceGroup.KIND_MODEL, [], None),
        (("cuda:0",), pb.ModelInstanceGroup.KIND_GPU, [0], None),
        (("cuda:3",), pb.ModelInstanceGroup.KIND_GPU, [3], None),
        (("cuda:2", "cuda:3"), pb.ModelInstanceGroup.KIND_MODEL, [], "2,3"),
    ],
)
def test_an_engine_runs_where_it_was_planned(
    tmp_path: Path, devices: tuple[str, ...], kind: int, gpus: list[int], pinned: str | None
) -> None:
    config, _ = written(tmp_path, llama(), placed(engine(*devices)))
    (group,) = config.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (1, kind, gpus), "never two engines for one plan"
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    named = {"GPU_DEVICE_IDS": pinned} if pinned else {}
    assert parameters == {"REPORT_CUSTOM_METRICS": "true"} | named


def test_the_devices_are_named_for_who_reads_the_entry(tmp_path: Path) -> None:
    _, version = written(tmp_path, llama(), placed(engine("cuda:2", "cuda:3")))
    assert "# Placement: vllm on cuda:2, cuda:3" in (version.parent / "config.pbtxt").read_text(encoding="utf-8")


def test_the_template_is_a_whole_entry_by_itself() -> None:
    text = (templates_directory() / "vllm" / "config.pbtxt").read_text(encoding="utf-8")
    template = text_format.Parse(text, pb.ModelConfig())
    assert (template.backend, template.max_batch_size, template.model_transaction_policy.decoupled) == ("vllm", 0, True)
    assert [tensor.name for tensor in template.input] == [tensor.name for tensor in VLLM.inputs]
    assert [tensor.name for tensor in template.output] == [tensor.name for tensor in VLLM.outputs]
    assert set(template.parameters) == {"REPORT_CUSTOM_METRICS"}


# -- model.json ------------------------------------------------------------------------------------------------------


def test_engine_arguments_are_written_as_what_they_are(tmp_path: Path) -> None:
    args: dict[str, JsonValue] = {**ARGS, "hf_overrides": {"rope_theta": 1e6}, "seed": None, "stop": ["é"]}
    _, version = written(tmp_path, llama(), placed(engine("host", args=args)))
    assert read(version / "model.json") == {"model": "/models/llama", **args}
    assert sorted(path.name for path in version.iterdir()) == ["model.json"]


def test_the_folder_is_that_of_this_model_whatever_the_plan_says(tmp_path: Path) -> None:
    _, version = written(tmp_path, llama(), placed(engine("host", args={"model": "/elsewhere"})))
    assert read(version / "model.json") == {"model": "/models/llama"}


def test_paths_are_those_that_triton_sees(tmp_path: Path) -> None:
    adapter = Adapter(name="sql", path=Path("/models/adapters/sql"), rank=8)
    plan = engine("host", args={"enable_lora": True}, adapters=(adapter,))
    _, version = written(tmp_path, llama(), placed(plan), **{"/models": "/mnt", "/models/adapters": "/lora"})
    assert read(version / "model.json") == {"model": "/mnt/llama", "enable_lora": True}
    assert read(version / "multi_lora.json") == {"sql": "/lora/sql"}


def test_lora_without_an_adapter_has_its_file_too(tmp_path: Path) -> None:
    """Triton's backend refuses to load without it."""
    _, version = written(tmp_path, llama(), placed(engine("host", args={"enable_lora": True})))
    assert read(version / "multi_lora.json") == {}


def test_a_gguf_model_is_named_by_its_file(tmp_path: Path) -> None:
    file = Path("/models/llama/llama-00001-of-00002.gguf")
    _, version = written(tmp_path, llama(file, WeightFormat.GGUF), placed(engine("host", args={})), **{"/models": "/mnt"})
    assert read(version / "model.json") == {"model": "/mnt/llama/llama-00001-of-00002.gguf"}


def test_the_entry_remembers_where_its_model_is(tmp_path: Path) -> None:
    _, version = written(tmp_path, llama(), placed(engine("cuda:1")))
    mark = json.loads((version.parent / "modelium.json").read_text(encoding="utf-8"))
    assert (mark["model_path"], mark["runtime"], mark["device"]) == ("/models/llama", "vllm", "cuda:1")


@pytest.mark.parametrize(
    ("profile", "plan", "words"),
    [
        (llama(), None, "nothing was planned"),
        (llama(), engine("host", args={"seed": float("nan")}), "no JSON"),
        (llama(Path("/models/caf\udce9")), engine("host"), "UTF-8"),
    ],
)
def test_what_vllm_could_not_read_is_refused_and_leaves_nothing(
    tmp_path: Path, profile: ModelProfile, plan: EnginePlan | None, words: str
) -> None:
    with pytest.raises(EntryError, match=words):
        written(tmp_path, profile, placed(plan))
    assert list((tmp_path / "repository").iterdir()) == []


def test_a_new_plan_replaces_the_whole_entry(tmp_path: Path) -> None:
    adapter = Adapter(name="sql", path=Path("/models/sql"), rank=8)
    written(tmp_path, llama(), placed(engine("host", adapters=(adapter,))))
    config, version = written(tmp_path, llama(), placed(replace(engine("cuda:0"), engine_args={"max_model_len": 8})))
    assert sorted(path.name for path in version.iterdir()) == ["model.json"], "the adapters' file is gone with them"
    assert list(config.instance_group[0].gpus) == [0]


# -- when it is written again ----------------------------------------------------------------------------------------


def test_an_entry_is_not_written_again_for_another_reason_or_sum() -> None:
    """What is planned for a device changes its words and its sums with what else is on it."""
    before = placed(engine("cuda:0"))
    line = PlanLine(name="KV cache", value="1.0 GiB", reason="there is no room for more")
    assert before.engine is not None
    after = replace(
        before,
        reason="somebody waits",
        footprint=Footprint(estimated_bytes=5, measured_bytes=7),
        engine=replace(before.engine, lines=(line,), activation_bytes=9),
    )
    assert entry_basis(before) == entry_basis(after)


@pytest.mark.parametrize(
    "changed",
    [
        placed(engine("cuda:0", args={**ARGS, "gpu_memory_utilization": 0.25})),
        placed(engine("cuda:1")),
        placed(engine("cuda:0", "cuda:1")),
        placed(engine("cuda:0", adapters=(Adapter(name="sql", path=Path("/models/sql"), rank=8),))),
    ],
)
def test_an_entry_is_written_again_for_another_engine(changed: Placement) -> None:
    assert entry_basis(placed(engine("cuda:0"))) != entry_basis(changed)
