"""vLLM without Triton, in one process that imports it once: it reads from a config.json what Modelium reads, and engines that
are started as Triton's backend starts them write what ``transformers.generate`` writes, with key-value caches as planned.

Here are the architectures whose way through Triton no other test has to go; ``test_vllm_backend.py`` and
``test_language_loop.py`` go it with the others.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelium.analyzers.language import read_language_model
from modelium.repository import ModelRepository
from modelium.resources import triton_directory
from modelium.values import LanguageModel
from tests.models import RUNTIME
from tests.models.language import GPT2, LATENT, MIXTURE, continuations
from tests.server.language_plans import Said, expected, plan
from tests.unit.analyzers import language_configs

pytestmark = pytest.mark.server

PROCESS = Path(__file__).parent.parent / "models" / "language" / "vllm_process.py"
THREADS = 3
NOT_IN_TRANSFORMERS = {"chatglm", "openelm"}
# What the two see differently, and why ours is what the memory plan needs.
DIFFERENT = {
    "axk2": {"head_size"},  # what its cache keeps is not hidden_size / heads
    "bart": {"layers"},  # vLLM counts the encoder's
    "blenderbot": {"layers"},
    "gemma4": {"head_size"},  # vLLM: the wider of its two kinds of heads; here each group has its own
    "gemma4_text": {"head_size"},
    "gemma4_unified": {"head_size"},
    "gemma4_unified_text": {"head_size"},
    "longcat_flash": {"layers"},  # two attentions, and two caches, in each of what vLLM calls a layer
    "dbrx": {"experts"},  # under ffn_config, where vLLM does not look for the count
    "hunyuan_v1_moe": {"experts"},  # a mixture of one
    "minicpm3": {"head_size"},
    "youtu": {"head_size"},
    "deepseek_v4": {"context"},
    "reformer": {"head_size"},
    "xlnet": {"context"},
    "phi3": {"context"},  # vLLM takes LongRoPE's short length unless it is told the long one, which it accepts
    "phimoe": {"context"},
}
DIFFERENT_WHOLLY = {"blt", "gemma4_assistant", "gemma4_unified_assistant"}  # what vLLM finds are zeros


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """The process; ``log`` is its standard error, ``cache`` the directory in which vLLM keeps what it has found out."""

    process: subprocess.Popen[str]
    log: Path
    cache: Path

    def call(self, said: Mapping[str, object]) -> Any:
        """Send a line and return the answer to it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(said) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "it died"}')
        assert "error" not in answer, f"{answer['error']}; its words: {self.log.read_text(errors='replace')[-3000:]}"
        return answer


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    directory = tmp_path_factory.mktemp("vllm")
    log, cache = directory / "log", directory / "cache"
    command = [RUNTIME / "bin" / "python", PROCESS, triton_directory() / "backends" / "vllm"]
    with (
        log.open("w") as out,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            text=True,
            env={**os.environ, "VLLM_CACHE_ROOT": str(cache)},
        ) as process,
    ):
        yield Vllm(process=process, log=log, cache=cache)
        assert process.stdin is not None
        process.stdin.close()  # its end


def test_what_engines_are_forked_from_has_one_thread_no_socket_and_no_gpu(vllm: Vllm) -> None:
    vllm.call({"view": {}})
    seen = psutil.Process(vllm.process.pid)
    assert [thread.id for thread in seen.threads()] == [seen.pid]
    assert seen.net_connections(kind="all") == []
    files = [os.readlink(file) for file in Path(f"/proc/{seen.pid}/fd").iterdir()]  # noqa: PTH115
    assert [file for file in files if file.startswith("/dev/nvidia")] == []


@pytest.mark.parametrize("name", [GPT2, MIXTURE, LATENT])
def test_greedy_text_is_that_of_transformers_and_the_cache_is_as_planned(
    vllm: Vllm, tmp_path: Path, language_models: Path, name: str
) -> None:
    planned, repository = plan(name, language_models), ModelRepository(tmp_path / "repository")
    planned.write(repository)
    every, before = continuations(language_models, name), vllm.log.stat().st_size
    asks = [{"prompt": one.prompt, "max_tokens": one.max_new_tokens} for one in every]
    answer = vllm.call(
        {"write": str(tmp_path / "repository" / name / "1"), "ask": asks, "environment": {"OMP_NUM_THREADS": str(THREADS)}}
    )
    for wanted, one in zip(every, answer["said"], strict=True):
        assert Said(**{**one, "new_tokens": tuple(one["new_tokens"])}) == expected(wanted), wanted.prompt
    planned.check_cache(vllm.log.read_bytes()[before:].decode(errors="replace"))
    assert answer["threads"] == THREADS  # set after OpenMP was loaded
    assert not (vllm.cache / "modelinfos").exists()  # no process of its own has looked at the model's class
    repository.close()


def read(config: Mapping[str, Any]) -> LanguageModel:
    found = read_language_model(config, parameters=0, dtype="bfloat16", tokenizer={}, generation={}, has_chat_template=False)
    assert found is not None
    return found


def test_it_reads_the_same_facts_from_the_same_file(vllm: Vllm) -> None:
    configs = dict(_configs())
    seen = vllm.call({"view": configs})
    wrong, equal = {}, 0
    for name, config in configs.items():
        model_type, theirs, ours = config["model_type"], seen[name], _view(read(config))
        if "error" in theirs or model_type in DIFFERENT_WHOLLY:
            continue
        different = {key: (ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]}
        if set(different) - DIFFERENT.get(model_type, set()):
            wrong[name] = different
        equal += not different
    assert wrong == {}
    assert equal > 150


def _view(found: LanguageModel) -> dict[str, object]:
    return {
        "layers": found.layers,
        "heads": found.heads,
        "kv_heads": found.kv_heads,
        "head_size": found.head_size,
        "vocabulary": found.vocabulary,
        "hidden_size": found.hidden_size,
        "experts": found.experts,
        "quantization": found.quantization,
        "context": found.context_length if found.context_length is not None else 10**9,
    }


def _configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """The well-known ones, and the default of every class in the causal-LM mapping."""
    for name, value in vars(language_configs).items():
        if name.isupper() and value["model_type"] not in NOT_IN_TRANSFORMERS:
            yield name, value
    importlib.import_module("transformers.utils.logging").set_verbosity_error()
    modeling_auto = importlib.import_module("transformers.models.auto.modeling_auto")
    classes = importlib.import_module("transformers").CONFIG_MAPPING
    for model_type, architecture in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if not model_type.startswith("musicgen"):
            written = json.loads(classes[model_type]().to_json_string(use_diff=True))
            yield model_type, {**written, "architectures": [architecture]}
