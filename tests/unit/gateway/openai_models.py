"""Models for the tests of /v1: folders with a chat template and a tokenizer, and engines that say what a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from modelium.values import Adapter, LanguageModel, ModelProfile, Task

from .stand_in import Step, Tensors, profile_of, response

CHATML = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ("<s>", "</s>", "<unk>", "hello", "world", "a", "b", "c")


def write_folder(
    path: Path,
    template: str | None = CHATML,
    *,
    config: Mapping[str, object] | None = None,
    bos: bool = False,
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    if template is not None:
        (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", **(config or {})}))
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}] if bos else []
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": word, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for i, word in enumerate(WORDS[:3])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*single, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}} if bos else {},
        },
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": "<unk>"},
    }  # fmt: skip
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


def chat_model(path: Path, name: str = "m", *, adapters: Sequence[Adapter] = (), **changes: Any) -> ModelProfile:
    """A generator whose folder is ``path``."""
    language = LanguageModel(
        layers=2, hidden_size=8, heads=2, kv_heads=2, head_size=4, vocabulary=8, groups=(), adapters=tuple(adapters),
        **changes.pop("language", {}),
    )  # fmt: skip
    return profile_of(Task.TEXT_GENERATION, name, path=path, language=language, fingerprint=str(path), is_llm=True, **changes)


def saying(*texts: str, reason: str = "stop") -> Callable[[Tensors], Iterable[Step]]:
    """An engine that says ``texts``, a piece each."""

    def steps(inputs: Tensors) -> Iterable[Step]:
        for index, text in enumerate(texts):
            yield response(text, reason if index == len(texts) - 1 else None)

    return steps


def prompt_of(inputs: Tensors) -> str:
    return str(inputs["text_input"].item(0).decode())


def sampling_of(inputs: Tensors) -> dict[str, Any]:
    """Without what every request of /v1 asks for."""
    sampling: dict[str, Any] = orjson.loads(inputs["sampling_parameters"].item(0))
    return {name: value for name, value in sampling.items() if name != "facts"}
