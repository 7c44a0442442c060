"""A small task of lm-eval through the gateway: what it is told of each continuation is transformers' own log-likelihood.

Not in the suite, for lm-eval's libraries take 600 MB: ``make clients-lm-eval`` makes their environment and runs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.models.language import LLAMA, ensure_language_models
from tests.server.systems import HEAVY, ROOT, RUNTIME, system

pytestmark = pytest.mark.asyncio
HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("LM_EVAL_ENVIRONMENT", ROOT / ".clients-lm-eval")) / "bin" / "python"


async def run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*map(str, command), env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert await process.wait() == 0, command


async def test_lm_eval_is_told_what_transformers_says(tmp_path: Path) -> None:
    folder = ensure_language_models() / LLAMA
    tasks, told, pairs, reference = (tmp_path / name for name in ("tasks", "told.json", "pairs.json", "reference.json"))
    tasks.mkdir()
    written = (HERE / "capitals" / "capitals.yaml").read_text(encoding="utf-8")
    (tasks / "capitals.yaml").write_text(written.replace("DATA", str(HERE / "capitals" / "capitals.jsonl")), encoding="utf-8")
    chosen = {LLAMA: {"engine_args": {"max_model_len": 512, "dtype": "float32"}}}
    orchestration = {"load_on_discovery": False, "policies": HEAVY}
    (tmp_path / "system").mkdir()
    async with system(
        tmp_path / "system", devices={"host_memory": "12GiB"}, orchestration=orchestration, models=chosen
    ) as running:
        shutil.copytree(folder, tmp_path / "system" / LLAMA)
        (tmp_path / "system" / LLAMA).rename(running.incoming / LLAMA)
        await running.becomes(LLAMA, "UNLOADED")  # its first request loads it
        await run(PYTHON, HERE / "of_lm_eval.py", running.running.gateway_url, LLAMA, folder, tasks, told)
    answers: Any = json.loads(told.read_text(encoding="utf-8"))
    pairs.write_text(json.dumps([answer[:2] for answer in answers["told"]]), encoding="utf-8")
    await run(RUNTIME / "bin" / "python", HERE / "reference_likelihoods.py", folder, pairs, reference)
    expected: Any = json.loads(reference.read_text(encoding="utf-8"))
    assert len(answers["told"]) == 12
    for (context, continuation, likelihood, greedy), (value, is_greedy) in zip(answers["told"], expected, strict=True):
        assert likelihood == pytest.approx(value, abs=1e-3), (context, continuation)
        assert greedy == is_greedy, (context, continuation)
