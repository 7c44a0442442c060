"""``python vllm_process.py BACKEND``: vLLM without Triton, imported once. Runs in the model runtime's environment.

What enters: a line of JSON each: ``{"view": configs}`` (see ``vllm_view.py``), or ``{"write": the directory of an entry's
version, "ask": [{"prompt", "max_tokens"}], "environment": variables}``. What leaves: a line each: the view, ``{"said":
[{"text", "new_tokens", "finish", "prompt_tokens"}], "threads": that compute}``, or ``{"error"}``; what an engine logs goes to
standard error. BACKEND is the directory of Triton's vLLM backend, whose own code starts, asks and ends the engines: greedily,
all questions in one batch.

This process has run what a nursery runs, and like a nursery it answers each line in a fork. What an engine changes in its
process (threads, variables, levels of a log) ends with it, and the seconds that it takes to import vLLM are spent once.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]


def main(backend: str) -> None:
    runpy.run_path(str(Path(backend) / "warm.py"))
    from vllm_view import view

    answers_to, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin:
        said = json.loads(line)
        print(
            _in_a_fork(lambda given: view(given["view"]) if "view" in given else _write(given), said),
            file=answers_to,
            flush=True,
        )


def _in_a_fork(answer: Callable[[JsonObject], JsonObject], said: JsonObject) -> str:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            reply = answer(said)
        except BaseException:
            reply = {"error": traceback.format_exc()}
        with os.fdopen(write, "w") as pipe:
            pipe.write(json.dumps(reply))
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text or json.dumps({"error": "the fork died"})


def _write(said: JsonObject) -> JsonObject:
    from vllm_backend import entry, processes
    from vllm_backend.engine import Engine

    os.environ.update(said.get("environment", {}))
    directory = Path(said["write"])
    arguments = entry.read_engine_args(directory)
    arguments["enable_lora"] = entry.read_adapters(directory, arguments) is not None
    group = processes.lead_group()
    processes.start_guard(group)
    engine = Engine(group)
    try:
        engine.start(arguments, None)
        asked = [engine.run(_ask(engine.llm, number, one)) for number, one in enumerate(said["ask"])]
        return {"said": [one.result() for one in asked], "threads": engine.run(_threads()).result()}
    finally:
        engine.stop(within_s=5.0)


async def _threads() -> int:
    import torch

    return torch.get_num_threads()  # of the thread that has forked the engine, which has as many


async def _ask(llm: Any, number: int, one: JsonObject) -> JsonObject:
    from vllm_backend import compat

    prompt: JsonObject = {"prompt": one["prompt"]}
    params = compat.sampling_params({"temperature": 0, "max_tokens": one["max_tokens"]}, stream=False)
    (last,) = [output async for output in compat.generate(llm, prompt, params, str(number), None)]
    (written,) = last.outputs
    return {
        "text": written.text,
        "new_tokens": list(written.token_ids),
        "finish": written.finish_reason,
        "prompt_tokens": len(last.prompt_token_ids),
    }


if __name__ == "__main__":
    main(sys.argv[1])
