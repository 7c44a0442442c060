"""transformers' own log-likelihoods, in the model runtime's environment: a folder and pairs of texts enter, what lm-eval would
be told leaves: the log-likelihood of each second text behind the first, and whether each of its tokens is the likeliest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(folder: str, pairs: str, out: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    told = []
    for context, continuation in json.loads(Path(pairs).read_text(encoding="utf-8")):
        whole = tokenizer.encode(context + continuation, add_special_tokens=False)
        begin = len(tokenizer.encode(context, add_special_tokens=False))
        with torch.inference_mode():
            logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        rows = [(logprobs[at - 1], whole[at]) for at in range(begin, len(whole))]
        greedy = all(int(row.argmax()) == token for row, token in rows)
        told.append([sum(float(row[token]) for row, token in rows), greedy])
    Path(out).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
