"""Decoders that rank by their next word: how much rather "yes" than "no" a pair of query and document is continued.

What enters: a folder. What leaves: ``NextWord``: pairs → tokens, batches → one number a pair. As sentence-transformers'
``LogitScore`` has it; Qwen3-Reranker, which was published without its files, as its authors say.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .batching import Encoding, Text
from .contract import BadInput, Settings
from .loading import load_model, load_processor, move, read_object

_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_QWEN3_BEFORE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
_QWEN3_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_TRIES = 8  # to cut a document so that what is made of it is short enough
_MARKS = ("qyrqyr", "dvcdvc")


class NextWord:
    """The words are those of ``LogitScore``, else "yes" and "no"."""

    side = "left"  # padding: the last place is every row's next word

    def __init__(self, settings: Settings, prompt: str) -> None:
        self.model = load_model(settings, "AutoModelForCausalLM")
        tokenizer = load_processor(settings, "AutoTokenizer")
        self.text = Text.of(tokenizer, settings, self.model)
        self._true, self._false = _words(settings, tokenizer)
        self._prompt = prompt
        transformer = read_object(settings.model_path, "sentence_bert_config.json")
        said = (transformer.get("processing_kwargs") or {}).get("chat_template") or {}
        self._options = {key: value for key, value in said.items() if isinstance(value, bool | str)}
        self._structured = _structure(tokenizer, self._options)
        if self._structured is None and self.model.config.model_type != "qwen3":
            raise RuntimeError(
                "it ranks by its next word, and its chat template has no place for the roles query and document: "
                "its folder does not say how a pair is asked"
            )
        keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        self._last_alone = {"logits_to_keep": 1} if keeps else {}

    def encode(self, query: str, document: str) -> Encoding:
        """The whole question, its document cut to what the model takes."""
        document = self.text.cut(document)
        for _ in range(_TRIES):
            tokens: Encoding = self.text.tokenizer(self._ask(query, document), add_special_tokens=False).data
            over = len(tokens["input_ids"]) - (self.text.max_length or len(tokens["input_ids"]))
            if over <= 0:
                return tokens
            if not document:
                break
            held = max(1, len(self.text.tokenizer(document, add_special_tokens=False)["input_ids"]))
            document = document[: len(document) * max(0, held - over - 1) // held]
        raise BadInput(f"QUERY leaves no room for a document: this model takes at most {self.text.max_length} tokens")

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """One number a pair: the logarithm of the odds, or the one word's own number."""
        places = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        inputs = move({**batch, "position_ids": places}, self.model)
        inputs.pop("token_type_ids", None)
        last = self.model(**inputs, use_cache=False, **self._last_alone).logits[:, -1].float().cpu()
        return last[:, self._true] if self._false is None else last[:, self._true] - last[:, self._false]

    def _ask(self, query: str, document: str) -> str:
        if self._structured is None:
            asked = f"<Instruct>: {self._prompt or _INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
            return f"{_QWEN3_BEFORE}{asked}{_QWEN3_AFTER}"
        return _render(self.text.tokenizer, query, document, self._prompt, self._structured, self._options)


def _words(settings: Settings, tokenizer: Any) -> tuple[int, int | None]:
    modules = Path(settings.model_path) / "modules.json"
    listed = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    for module in listed:
        if str(module.get("type", "")).endswith(".LogitScore"):
            said = read_object(settings.model_path, f"{module.get('path', '')}/config.json")
            return int(said["true_token_id"]), None if said.get("false_token_id") is None else int(said["false_token_id"])
    yes, no = tokenizer.convert_tokens_to_ids("yes"), tokenizer.convert_tokens_to_ids("no")
    if None in (yes, no) or tokenizer.unk_token_id in (yes, no):
        raise RuntimeError("its tokenizer has no word yes or no, and its folder does not say by which words it ranks")
    return yes, no


def _structure(tokenizer: Any, options: Mapping[str, Any]) -> bool | None:
    """Whether its chat template wants contents in parts; None where it has no place for the two roles."""
    if not tokenizer.chat_template:
        return None
    for structured in (False, True):
        try:
            asked = _render(tokenizer, *_MARKS, "", structured, options)
        except Exception:  # a template is a program of somebody's: it may fail in any way
            continue
        if all(mark in asked for mark in _MARKS):
            return structured
    return None


def _render(tokenizer: Any, query: str, document: str, prompt: str, structured: bool, options: Mapping[str, Any]) -> str:
    roles = [("system", prompt)] if prompt else []
    messages = [
        {"role": role, "content": [{"type": "text", "text": content}] if structured else content}
        for role, content in [*roles, ("query", query), ("document", document)]
    ]
    asked: str = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return asked
