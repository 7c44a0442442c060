"""A Whisper that says when: it has learnt two recordings by heart, in parts; transformers' pipeline answers.

Runs in the model runtime.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from tests.models.common import Reference, case, fit, save
from tests.models.sounds import hear, record, say, untaught_whisper

_RATE = 16_000
# What is heard, in two languages: words with the second in which each part begins and ends.
_SAID = {
    "abab": {"en": [("hello", 0.0, 0.2), (" there", 0.2, 0.4)], "fr": [("bonjour", 0.0, 0.4)]},
    "dcdc": {"en": [("good bye", 0.1, 0.4)], "fr": [("au revoir", 0.0, 0.3)]},
}


def make_stamps(folder: Path, files: Path) -> Reference:
    """The other Whisper, taught with times."""
    model, extractor, tokenizer, _ = untaught_whisper()
    heard = extractor([say(key) for key in _SAID for _ in range(2)], sampling_rate=_RATE, return_tensors="pt")["input_features"]
    rows = [_row(tokenizer, language, parts) for languages in _SAID.values() for language, parts in languages.items()]
    length = max(len(row) for row in rows)
    padded = torch.tensor([row + [-100] * (length - len(row)) for row in rows])
    inputs = padded.masked_fill(padded == -100, tokenizer.eos_token_id)
    batch = {"input_features": heard, "decoder_input_ids": inputs[:, :-1], "labels": padded[:, 1:]}
    fit(model, lambda: batch, steps=90, rate=4e-3)
    save(folder, model, extractor, tokenizer)
    ask = pipeline("automatic-speech-recognition", model=str(folder), device="cpu")
    long = record(files, "long-talk.wav", say("abab" + " " * 296 + "dcdc" + " " * 100 + "abab"))
    cases = []
    names = [record(files, "talk.wav", say("abab")), record(files, "talk-low.wav", say("dcdc")), long]
    for name in names:
        for language in ("en", "fr"):
            answer = ask(
                hear(files, name), return_timestamps=True, generate_kwargs={"language": language, "task": "transcribe"}
            )
            asked = {"language": language, "task": "transcribe", "return_timestamps": True}
            cases.append(case({"AUDIO": {"file": name}}, json.loads(json.dumps(answer)), **asked))
    return {"task": "automatic-speech-recognition", "cases": cases}


def _row(tokenizer: Any, language: str, parts: list[tuple[str, float, float]]) -> list[int]:
    tokens = ["<|startoftranscript|>", f"<|{language}|>", "<|transcribe|>"]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    for text, start, end in parts:
        first, last = (tokenizer.convert_tokens_to_ids(f"<|{seconds:.2f}|>") for seconds in (start, end))
        ids += [first, *tokenizer(text, add_special_tokens=False)["input_ids"], last]
    return [*ids, tokenizer.eos_token_id]
