"""Record what a vLLM serves: an environment that holds one enters, modelium/brain/runtimes/vllm_architectures.py leaves.

Read from vLLM's own registry, without an import: that takes a minute and wants a machine that it runs on.

    make generate                                         the vLLM of .runtime
    python scripts/record_vllm_architectures.py --check   exit code 1 when the record is not what is installed
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from modelium.runtime_env import inspect
from modelium.runtime_env.vllm_registry import read_lora, read_registry, vllm_version

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "modelium" / "brain" / "runtimes" / "vllm_architectures.py"
_HEAD = '''"""What vLLM {version} serves: its own registry, as facts.

Written by scripts/record_vllm_architectures.py (``make generate``); don't edit. TEXT and MULTIMODAL generate with code of
vLLM's own, TRANSFORMERS and TRANSFORMERS_MULTIMODAL with transformers' code in vLLM's engine, POOLING gives vectors and scores.
LORA: those that take LoRA adapters. CONFIGS: model types that it reads without code from the folder. DROPPED: architecture,
last version that had it; PLUGINS: architecture, its package now.
"""

# ruff: noqa: SIM905

from __future__ import annotations

VLLM_VERSION = "{version}"
'''


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=ROOT / ".runtime")
    parser.add_argument("--check", action="store_true")
    chosen = parser.parse_args()
    text = write_record(chosen.directory)
    if chosen.check:
        return int(text != RECORD.read_text(encoding="utf-8"))
    RECORD.write_text(text, encoding="utf-8")
    return 0


def write_record(runtime: Path) -> str:
    """The record of the vLLM in the environment ``runtime``."""
    report = inspect(runtime)
    version = vllm_version(report.packages)
    registry = read_registry(report.site_packages / "vllm") if report.site_packages is not None else None
    if not version or registry is None or report.site_packages is None:
        raise SystemExit(f"{runtime} has no vLLM, or one whose registry is written in another way")
    parts = {
        "TEXT": registry.text,
        "MULTIMODAL": registry.multimodal,
        "TRANSFORMERS": registry.transformers_text,
        "TRANSFORMERS_MULTIMODAL": registry.transformers_multimodal,
        "POOLING": registry.pooling,
        "LORA": read_lora(report.site_packages / "vllm", registry),
        "QUANTIZATIONS": registry.quantizations,
        "CONFIGS": registry.config_types,
    }
    record = [_HEAD.format(version=version)]
    record += [f"{name}: frozenset[str] = frozenset(\n    {_words(words)}\n)\n" for name, words in parts.items()]
    for name, pairs in (("DROPPED", registry.dropped), ("PLUGINS", registry.plugins)):
        joined = _words(f"{architecture}={value}" for architecture, value in pairs.items())
        record.append(f'{name}: dict[str, str] = dict(\n    pair.split("=")\n    for pair in {joined}\n)\n')
    return "\n".join(record)


def _words(words: Iterable[str]) -> str:
    lines = textwrap.wrap(" ".join(sorted(words)), 124, break_long_words=False, break_on_hyphens=False)
    return '"""\n' + "\n".join(f"    {line}" for line in lines) + '\n    """.split()'


if __name__ == "__main__":
    sys.exit(main())
