"""What the verbs say about language models: facts, every number of the engine's plan, an entry for a machine with GPUs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from modelium.cli import main, replies, show
from modelium.cli.engine import language_rows
from modelium.repository.config import parse_config
from modelium.values import (
    Adapter,
    AttentionKind,
    DeviceKind,
    EnginePlan,
    Fleet,
    Footprint,
    LanguageModel,
    LayerGroup,
    ModelProfile,
    ModelStatus,
    Placement,
    PlanLine,
    Runtime,
    ServerStatus,
    Snapshot,
    State,
    Task,
)
from modelium.views import Engine, Language, Status, written
from tests.unit.cli.llama_folder import llama_8b
from tests.unit.views import snapshot_view

VLLM = "triton: {mode: external, backends: [python, vllm]}\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modelium.yaml").write_text(VLLM)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return llama_8b(tmp_path / "llama-8b")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def text_of(content: RenderableType) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


# -- on this machine -------------------------------------------------------------------------------------------------


def test_inspect_tells_the_facts_and_every_number_with_its_reason(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(llama), "--gpu", "80GiB") == 0
    shown = capsys.readouterr().out
    for words in (
        "GQA: 32 heads of 128, 8 for keys and values",
        "131,072 bytes a token in bfloat16",
        "chat template ",
        "cuda:0: 72.0 GiB free of 72.0 GiB for models on a GPU with 80.0 GiB",
        "text_input",
        "as planned below",
    ):
        assert words in shown
    assert "longest input" not in shown, "the context says it already"
    plan = shown.split("planned  ", 1)[1].split("inputs", 1)[0].splitlines()[1:]
    assert len(plan) > 10
    assert all(len(line.split("  ")) >= 3 for line in plan if line.strip()), "a name, a number and a reason in each line"


def test_inspect_as_json_has_the_facts_the_engine_and_its_reasons(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(llama), "--gpu", "20GiB", "--gpu", "20GiB", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runtime"], found["runtime_rule"], found["devices"]) == ("vllm", "runtime.3", ["cuda:0", "cuda:1"])
    assert found["language"]["kv_bytes_per_token"] == 131_072
    assert found["language"]["layer_groups"][0]["kind"] == "full"
    assert found["engine"]["engine_args"]["tensor_parallel_size"] == 2
    assert found["engine"]["kv_bytes_per_token"] == 65_536, "each GPU keeps the half"
    assert found["plan"] == found["engine"]["plan"]
    assert all(line["value"] and line["reason"] for line in found["plan"])
    assert found["decoupled"] and found["inputs"][0]["name"] == "text_input"


def test_a_model_that_is_too_big_says_by_how_much_and_shows_its_sums(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(llama), "--gpu", "16GiB") == 1
    shown = capsys.readouterr().out
    assert " short" in shown and "15.0 GiB" in shown
    assert run("inspect", str(llama), "--gpu", "16GiB", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["engine"] is None and found["device"] is None
    assert {"weights", "KV cache", "total"} <= {line["name"] for line in found["plan"]}


def test_a_context_that_was_shortened_is_told_in_every_view(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("inspect", str(llama), "--gpu", "24GiB", "--json") == 0
    engine = json.loads(capsys.readouterr().out)["engine"]
    words = f"context {engine['max_model_len']:,} of 131,072: what fits on cuda:0"
    assert (engine["full_context"], engine["context"]) == (131_072, words)
    assert run("inspect", str(llama), "--gpu", "24GiB") == 0
    assert words.partition(":")[0] in capsys.readouterr().out
    Path("modelium.yaml").write_text(VLLM + "vllm: {fit_context: false}\n")
    assert run("inspect", str(llama), "--gpu", "24GiB") == 1
    assert " short" in capsys.readouterr().out


def test_engine_args_by_hand_are_planned_with(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("modelium.yaml").write_text(VLLM + "models: {llama-8b: {engine_args: {max_model_len: 4096, seed: 7}}}\n")
    assert run("inspect", str(llama), "--gpu", "80GiB", "--json") == 0
    engine = json.loads(capsys.readouterr().out)["engine"]
    assert (engine["max_model_len"], engine["engine_args"]["max_model_len"], engine["engine_args"]["seed"]) == (4096, 4096, 7)


def test_render_writes_the_entry_for_another_machine(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("modelium.yaml").write_text(
        f"triton: {{mode: external, backends: [python, vllm], path_mapping: {{{tmp_path}: /models}}}}\n"
    )
    assert run("render", str(llama), "--gpu", "80GiB", "--out", "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == ["1/model.json", "config.pbtxt", "modelium.json"]
    model = json.loads((tmp_path / "out" / "llama-8b" / "1" / "model.json").read_text(encoding="utf-8"))
    assert model["model"] == "/models/llama-8b"
    assert 0.5 < model["gpu_memory_utilization"] < 0.8 and model["enforce_eager"] is False
    config = parse_config((tmp_path / "out" / "llama-8b" / "config.pbtxt").read_text(encoding="utf-8"))
    assert list(config.instance_group[0].gpus) == [0]


def test_a_size_that_is_none_is_wrong_usage(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, more in (("inspect", ()), ("render", ("--out", "out"))):
        for size, words in (
            ("80 parsecs", "80 parsecs"),
            ("0", "0GiB"),
            ("80", "80GiB"),
            ("24.5", "24.5GiB"),
            ("80GB", ""),
            ("512MiB", "less than a GPU has"),
            ("0GiB", "less than a GPU has"),
            ("9" * 400 + "GiB", "no size that any machine has"),
            ("99999TiB", "more than a GPU has"),
        ):
            code = run(verb, str(llama), "--gpu", size, *more)
            said = " ".join(capsys.readouterr().err.replace("│", " ").split())
            assert code == (2 if words else 0) and words in said and "Traceback" not in said, (size, said)


# -- of a running Modelium -------------------------------------------------------------------------------------------

SQL = Adapter(name="sql", path=Path("incoming/sql"), rank=8, base="meta/llama")
MIXED = LanguageModel(
    layers=4,
    hidden_size=512,
    heads=8,
    kv_heads=2,
    head_size=64,
    vocabulary=32_000,
    groups=(
        LayerGroup(kind=AttentionKind.FULL, layers=1, kv_heads=2, head_size=64),
        LayerGroup(kind=AttentionKind.SLIDING, layers=2, kv_heads=2, head_size=64, window=4096),
        LayerGroup(kind=AttentionKind.RECURRENT, layers=1, state_bytes=2**20),
    ),
    attention="GQA",
    context_length=32_768,
    rope_scaling="yarn ×4 of 8192",
    experts=8,
    experts_per_token=2,
    active_parameters=12_879_425_536,
    quantization="awq",
    quantization_bits=4,
    tied_embeddings=True,
    modalities=("image",),
    generation_defaults={"temperature": 0.6, "top_k": None},
    adapters=(SQL,),
)
ENGINE = EnginePlan(
    engine_args={"max_model_len": 32_768, "enforce_eager": True},
    devices=("cuda:0", "cuda:1"),
    max_model_len=32_768,
    max_num_seqs=16,
    weight_bytes=2**30,
    kv_bytes=2**30,
    kv_bytes_per_token=1024,
    kv_tokens=2**20,
    activation_bytes=2**20,
    graph_bytes=0,
    overhead_bytes=2**20,
    lines=(PlanLine(name="max_model_len", value="32,768", reason="the model's own context"),),
    adapters=(SQL,),
)
SERVED = ModelStatus(
    name="mixed",
    label="mixed",
    path=Path("incoming/mixed"),
    state=State.LOADED,
    reason="loaded",
    profile=ModelProfile(
        name="mixed",
        path=Path("incoming/mixed"),
        task=Task.TEXT_GENERATION,
        library="transformers",
        architecture="MixtralForCausalLM",
        max_length=32_768,
        is_llm=True,
        language=MIXED,
    ),
    placement=Placement(
        runtime=Runtime.VLLM,
        device_id="cuda:0",
        device_kind=DeviceKind.CUDA,
        device_index=0,
        footprint=Footprint(estimated_bytes=2**31),
        max_batch_size=0,
        engine=ENGINE,
    ),
    footprint=Footprint(estimated_bytes=2**31),
)


def reply_of(view: object) -> bytes:
    return json.dumps(view).encode()


def test_the_facts_of_an_unusual_model_are_told_in_words() -> None:
    rows = language_rows(replies.told(Language, MIXED))
    assert rows["attention"] == "GQA: 8 heads of 64, 2 for keys and values"
    assert rows["layers"] == "1 full, 2 sliding over 4,096 tokens, 1 recurrent, 1 MiB a request"
    assert rows["context"] == "32,768 tokens (yarn ×4 of 8192)"
    assert rows["experts"] == "8, 2 for each token, 12,879,425,536 parameters active"
    assert rows["quantized"] == "awq, 4 bits"
    assert rows["vocabulary"] == "32,000, tied embeddings"
    assert rows["takes"] == "text and image"
    assert rows["its own defaults"] == "temperature 0.6"
    assert rows["adapters"] == "sql: rank 8, made for meta/llama"
    assert rows["chat template"] == "none"


def test_what_is_not_known_or_not_so_has_no_row() -> None:
    plain = replace(MIXED, experts=0, quantization="", modalities=(), generation_defaults={}, adapters=(), context_length=None)
    rows = language_rows(replies.told(Language, plain))
    assert not {"experts", "quantized", "takes", "its own defaults", "adapters"} & rows.keys()
    assert rows["context"] == "not limited"


def test_the_engine_as_json_has_its_arguments_as_they_are_written() -> None:
    view = written(Engine, ENGINE)
    assert view["engine_args"] == {"max_model_len": 32_768, "enforce_eager": True}
    assert view["total_bytes"] == ENGINE.total_bytes
    assert (view["adapters"], view["devices"]) == (["sql"], ["cuda:0", "cuda:1"])
    json.dumps(view)


def test_why_shows_the_plan_of_the_engine_and_status_the_facts_too() -> None:
    found = replies.model(reply_of(written(Status, SERVED, 50.0)))
    for shown in (text_of(show.reasons(found)), text_of(show.model(found))):
        assert "max_model_len" in shown and "the model's own context" in shown
    assert "vllm on cuda:0, cuda:1" in text_of(show.model(found))
    assert "8, 2 for each token" in text_of(show.model(found))


def test_the_list_and_the_status_say_that_a_context_is_shorter() -> None:
    assert SERVED.placement is not None
    served = replace(SERVED, placement=replace(SERVED.placement, engine=replace(ENGINE, full_context=131_072)))
    words = "context 32,768 of 131,072: what fits on cuda:0 and cuda:1"
    found = replies.model(reply_of(written(Status, served, 50.0)))
    assert found.context == words and words in text_of(show.model(found))
    snapshot = Snapshot(now=0, models=(served,), fleet=Fleet(devices=()), server=ServerStatus(up=True), scanned=True)
    listed = text_of(show.models(replies.models(reply_of(snapshot_view(snapshot)))))
    assert "context 32,768 of" in " ".join(listed.split())


def test_the_list_stays_one_line_a_model() -> None:
    server = ServerStatus(up=True)
    snapshot = Snapshot(now=0, models=(SERVED,), fleet=Fleet(devices=()), server=server, scanned=True)
    view = snapshot_view(snapshot)
    lines = [line for line in text_of(show.models(replies.models(reply_of(view)))).splitlines() if line.strip()]
    assert len(lines) == 2
    assert "cuda:0, cuda:1" in lines[1] and "adapters: sql" in lines[1]
    assert "language" not in json.dumps(view)
