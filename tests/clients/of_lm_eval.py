"""lm-eval in its own environment: the address of a server, a model, its folder and a folder of tasks enter; what it was told of
each continuation leaves, as JSON: context, continuation, log-likelihood, whether it is what the model would have said.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(url: str, model: str, folder: str, tasks: str, out: str) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        model="local-completions",
        model_args={
            "base_url": f"{url}/v1/completions",
            "model": model,
            "tokenizer": folder,
            "tokenizer_backend": "huggingface",
            "num_concurrent": 2,
            "max_retries": 1,
        },
        tasks=["capitals"],
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        batch_size=2,
        log_samples=True,
        bootstrap_iters=0,
    )
    told = []
    for sample in results["samples"]["capitals"]:
        for asked, [answer] in zip(sample["arguments"], sample["resps"], strict=True):
            told.append([*asked[:2], float(answer[0]), answer[1] in (True, "True")])
    Path(out).write_text(json.dumps({"told": told, "accuracy": results["results"]["capitals"]["acc,none"]}), encoding="utf-8")


if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    main(*sys.argv[1:])
