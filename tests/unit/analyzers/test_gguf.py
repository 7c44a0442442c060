"""GGUF: what a header says, when a copy is whole, and what can be made of a file or a folder."""

from __future__ import annotations

import contextlib
import json
import struct
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.analyzers.folder import file_of
from modelium.analyzers.formats.gguf_header import read_gguf
from modelium.analyzers.verdict import NotYet, Rejected
from modelium.values import AttentionKind, ModelOverride, Task, WeightFormat
from tests.patience import work_s
from tests.unit.analyzers.folders import TOKENIZER, incomplete, lay, profile, unsupported
from tests.unit.analyzers.gguf_files import LLAMA, TENSORS, gguf

LLAMA_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4,
    "max_position_embeddings": 4096,
}
BESIDE = {"config.json": json.dumps(LLAMA_CONFIG), "tokenizer.json": TOKENIZER}


def test_a_single_file_says_what_it_is(tmp_path: Path) -> None:
    lay(tmp_path, {"tiny.gguf": gguf()})
    found = profile(tmp_path / "tiny.gguf")
    assert (found.task, found.architecture, found.library) == (Task.TEXT_GENERATION, "LlamaForCausalLM", "gguf")
    assert (found.weight_format, found.quantization, found.dtype) == (WeightFormat.GGUF, "gguf", "F32")
    assert found.parameters == 256 * 4 + 64 * 64 + 64 * 4
    assert found.weight_bytes == 576 + 64 * 64 * 4 + 272
    assert found.path == tmp_path / "tiny.gguf" and found.weight_files == ("tiny.gguf",)
    language = found.language
    assert language is not None
    assert (language.layers, language.hidden_size, language.heads, language.kv_heads, language.head_size) == (2, 64, 4, 2, 16)
    assert (language.context_length, language.vocabulary, language.chat_template) == (2048, 4, True)
    assert (language.quantization, language.attention, language.tied_embeddings) == ("gguf", "GQA", False)
    assert language.groups[0].kind is AttentionKind.FULL


def test_the_original_models_config_beside_it_says_more(tmp_path: Path) -> None:
    found = profile(lay(tmp_path / "m", {"tiny.Q4_K_M.gguf": gguf(), **BESIDE}))
    assert (found.library, found.architecture, found.model_type) == ("transformers", "LlamaForCausalLM", "llama")
    assert found.path == tmp_path / "m" / "tiny.Q4_K_M.gguf"
    assert found.language is not None and found.language.context_length == 4096
    assert found.language.quantization == "gguf"


def test_its_chat_templates_are_bounded_together(tmp_path: Path) -> None:
    name = "tokenizer.chat_template"
    lay(tmp_path, {"a.gguf": gguf({**LLAMA, name: "ä" * 2**16, f"{name}.rag": "b" * 2**17, f"{name}.tool_use": "c"})})
    language = profile(tmp_path / "a.gguf").language
    assert language is not None and language.chat_template
    assert dict(language.chat_templates) == {"default": "ä" * 2**16, "rag": "b" * 2**17}
    lay(tmp_path / "m", {"a.gguf": gguf(), **BESIDE})
    beside = profile(tmp_path / "m").language
    assert beside is not None and dict(beside.chat_templates) == {"default": "{{ messages }}"}


def test_layers_may_differ_in_heads_and_latent_attention_is_told(tmp_path: Path) -> None:
    varied = {**LLAMA, "llama.attention.head_count_kv": [0, 2]}
    lay(tmp_path, {"a.gguf": gguf(varied)})
    language = profile(tmp_path / "a.gguf").language
    assert language is not None and language.kv_heads == 2
    deepseek = {key.replace("llama.", "deepseek2."): value for key, value in LLAMA.items()}
    deepseek["general.architecture"] = "deepseek2"
    deepseek |= {"deepseek2.attention.kv_lora_rank": 32, "deepseek2.rope.dimension_count": 8}
    lay(tmp_path, {"b.gguf": gguf(deepseek)})
    found = profile(tmp_path / "b.gguf")
    assert found.architecture == "DeepseekV2ForCausalLM" and found.language is not None
    assert (found.language.attention, found.language.groups[0].latent_width) == ("MLA", 40)


def test_parts_of_one_model_are_read_together_and_waited_for(tmp_path: Path) -> None:
    first = gguf({**LLAMA, "split.count": 2}, {"token_embd.weight": TENSORS["token_embd.weight"]})
    second = gguf({"split.no": 1, "split.count": 2}, {"output.weight": TENSORS["output.weight"]})
    folder = lay(tmp_path / "m", {"big-00001-of-00002.gguf": first, **BESIDE})
    assert "big-00002-of-00002.gguf: not there yet" in incomplete(folder).why
    found = profile(lay(folder, {"big-00002-of-00002.gguf": second}))
    assert found.weight_bytes == 576 + 272 and found.path.name == "big-00001-of-00002.gguf"
    assert found.weight_files == ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    lay(tmp_path, {"alone.gguf": first})
    assert "one of 2 parts" in unsupported(tmp_path / "alone.gguf").why
    lay(tmp_path, {"big-00001-of-00002.gguf": first})
    assert "one part of a model" in unsupported(tmp_path / "big-00001-of-00002.gguf").why


def test_a_projector_beside_the_model_is_not_the_model(tmp_path: Path) -> None:
    projector = gguf({"general.architecture": "clip"}, {})
    assert profile(lay(tmp_path / "m", {"mmproj-f16.gguf": projector, "x.gguf": gguf()})).path.name == "x.gguf"
    lay(tmp_path, {"p.gguf": projector})
    assert "image projector" in unsupported(tmp_path / "p.gguf").why


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({**LLAMA, "general.type": "adapter"}, "LoRA adapter in GGUF"),
        ({**LLAMA, "general.architecture": "nomic-bert"}, "generates no text"),
        ({"general.name": "x"}, "generates no text"),
    ],
)
def test_what_is_no_generator_is_named(tmp_path: Path, facts: dict[str, object], word: str) -> None:
    lay(tmp_path, {"x.gguf": gguf(facts)})
    found = unsupported(tmp_path / "x.gguf")
    assert word in found.why and found.hint


def test_several_models_and_other_tasks_are_refused(tmp_path: Path) -> None:
    folder = lay(tmp_path / "m", {"a.Q4.gguf": gguf(), "a.Q8.gguf": gguf()})
    assert "2 GGUF models" in unsupported(folder).why
    lay(tmp_path, {"x.gguf": gguf()})
    assert "not for fill-mask" in unsupported(tmp_path / "x.gguf", override=ModelOverride(task=Task.FILL_MASK)).why


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"MZ" + b"x" * 100, "not a GGUF file"),
        (gguf(version=1), "GGUF version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + b"\1" * 64, "its header lies"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**50) + b"\1" * 64, "its header lies"),
        (gguf(tensors={"w": (12, (200, 4))}), "has the shape"),
        (gguf(tensors={"w": (77, (4, 4))}), "is not known"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, data: bytes, word: str) -> None:
    lay(tmp_path, {"x.gguf": data})
    assert word in unsupported(tmp_path / "x.gguf").why


@given(st.integers(0, len(gguf()) - 1))
def test_every_beginning_of_a_file_is_a_copy_under_way(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = lay(tmp_path_factory.mktemp("copy"), {"x.gguf": gguf()[:length]})
    padding = 16  # of the last tensor: nobody needs it
    if length < len(gguf()) - padding:
        with pytest.raises(NotYet):
            read_gguf(file_of(folder / "x.gguf", folder))


@given(st.integers(4, 600), st.binary(min_size=1, max_size=8))
def test_whatever_the_bytes_there_is_a_verdict(tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes) -> None:
    data = bytearray(gguf())
    data[at : at + len(junk)] = junk
    folder = lay(tmp_path_factory.mktemp("junk"), {"x.gguf": bytes(data)})
    with contextlib.suppress(NotYet, Rejected):
        read_gguf(file_of(folder / "x.gguf", folder))


@pytest.mark.parametrize("kind", ["texts in one array", "long texts", "arrays of texts", "arrays of numbers"])
def test_a_sparse_header_that_is_endless_costs_neither_time_nor_memory(tmp_path: Path, kind: str) -> None:
    def key(number: int) -> bytes:
        return struct.pack("<Q", 6) + b"k%05d" % number

    file = tmp_path / "x.gguf"
    with file.open("wb") as stream:
        if kind == "texts in one array":
            stream.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key(0) + struct.pack("<IIQ", 9, 8, 20_000_000))
            stream.truncate(200_000_000)
        else:
            body, hole = {
                "long texts": (struct.pack("<IQ", 8, 2**20), 2**20),
                "arrays of texts": (struct.pack("<IIQ", 9, 8, 100_000), 800_000),
                "arrays of numbers": (struct.pack("<IIQ", 9, 11, 4096), 8 * 4096),
            }[kind]
            stream.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 60_000))
            for number in range(10_000 if hole < 100_000 else 400):
                stream.write(key(number) + body)
                stream.seek(hole, 1)
            stream.truncate(stream.tell() + 2**20)
    if kind != "arrays of texts":  # which keep nothing, and are ten times slower when traced
        tracemalloc.start()
    started = time.process_time()
    with pytest.raises(Rejected, match="its header lies"):
        read_gguf(file_of(file, tmp_path))
    took, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < 100 * work_s() and peak < 64 * 2**20


def test_a_large_vocabulary_is_skipped(tmp_path: Path) -> None:
    facts = {**LLAMA, "tokenizer.ggml.tokens": [f"token{n}" for n in range(50_000)]}
    lay(tmp_path, {"x.gguf": gguf(facts)})
    header = read_gguf(file_of(tmp_path / "x.gguf", tmp_path))
    assert header.lengths["tokenizer.ggml.tokens"] == 50_000 and "tokenizer.ggml.tokens" not in header.facts
