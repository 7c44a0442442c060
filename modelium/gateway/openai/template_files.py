"""What a model's folder says about its chat template and special tokens: a path enters, ``ChatFormat`` leaves.

Files win as they do in transformers: ``chat_template.jinja`` over ``tokenizer_config.json``, beside it whatever lies in
``additional_chat_templates/``; ``chat_template.json`` is what processors used to write. What a GGUF file carries itself was
read with its header (``LanguageModel.chat_templates``).
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelium.errors import RequestError
from modelium.gateway.codecs.json_text import load_json

_MAX_TEMPLATE_BYTES = 2**20
_MAX_CONFIG_BYTES = 4 * 2**20  # tokenizer_config.json of some models lists every added token
_MAX_BRACKETS = 2**16  # those of its templates are counted too
_MAX_TOKENIZER_BYTES = 64 * 2**20  # the largest vocabularies take 35 MB
_MAX_PROCESSOR_BYTES = 2**16
_SEARCHED_BYTES = 2**21  # at a time: whoever searches lets no other thread run
_MAX_NAMED_FILES = 32
_PROCESSOR = b'"post_processor"'
_BEGINS = re.compile(rb"\s{0,99}:\s{0,99}(?=\{|null)")
_MAX_NAMESAKES = 100  # a token of the vocabulary may have that name, and then a number
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """``templates`` by name (the usual one is ``default``). ``prefix`` is the token that the tokenizer puts before every text:
    where a template writes it too, it would be there twice.
    """

    templates: Mapping[str, str]
    special_tokens: Mapping[str, str]
    prefix: str = ""

    def template(self, *, tools: bool) -> str | None:
        """The one to use; a model may have another for tools."""
        if tools and "tool_use" in self.templates:
            return self.templates["tool_use"]
        return self.templates.get("default")


def read_chat_format(path: Path, own: Mapping[str, object] | None = None) -> ChatFormat:
    """Of a model's folder, or of a single file (GGUF), which has templates of its ``own``, and what lies beside it. What cannot
    be read counts as absent."""
    folder = path if path.is_dir() else path.parent
    config = _read_json(folder / "tokenizer_config.json")
    special = {**_read_json(folder / "special_tokens_map.json"), **config}
    tokens = {name: token for name in SPECIAL_TOKENS if (token := _token(special.get(name)))}
    templates = _named(own)
    templates |= _named(_read_json(folder / "chat_template.json").get("chat_template"))
    templates |= _named(config.get("chat_template"))
    if (written := _read_text(folder / "chat_template.jinja")) is not None:
        templates = {"default": written}
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))[:_MAX_NAMED_FILES]:
        if (written := _read_text(file)) is not None:
            templates[file.stem] = written
    return ChatFormat(
        templates=templates,
        special_tokens=tokens,
        prefix=_prefix(folder / "tokenizer.json", config, tokens.get("bos_token", "")) if templates else "",
    )


def _named(templates: object) -> dict[str, str]:
    """A string, or a list of ``{"name", "template"}``."""
    if isinstance(templates, str):
        return {"default": templates}
    if isinstance(templates, dict):
        return {str(name): text for name, text in templates.items() if isinstance(text, str)}
    found: dict[str, str] = {}
    for item in templates if isinstance(templates, list) else []:
        if isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("template"), str):
            found[item["name"]] = item["template"]
    return found


def _token(value: object) -> str:
    """A token is a string or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _prefix(tokenizer: Path, config: Json, bos: str) -> str:
    """What the tokenizer puts before a text. ``add_bos_token``, where written, makes the processor anew (transformers 5)."""
    if isinstance(config.get("add_bos_token"), bool):
        return bos if config["add_bos_token"] else ""
    return first_token(_post_processor(_read_bytes(tokenizer, _MAX_TOKENIZER_BYTES) or b""))


def _post_processor(tokenizer: bytes) -> object:
    """Of a tokenizer.json, of which only that part is parsed: to parse 20 MB of vocabulary stops everything for a second.

    >>> _post_processor(b'{"post_processor": {"type": "ByteLevel"}, "model": {"vocab": {"post_processor": 7}}}')
    {'type': 'ByteLevel'}
    """
    end = 0
    for _ in range(_MAX_NAMESAKES):
        if (at := _find_processor(tokenizer, end)) < 0:
            return None
        end = at + len(_PROCESSOR)
        if begins := _BEGINS.match(tokenizer, end):
            part = tokenizer[begins.end() : begins.end() + _MAX_PROCESSOR_BYTES]
            try:
                return json.JSONDecoder().raw_decode(part.decode("utf-8", "ignore"))[0]
            except (ValueError, RecursionError):
                return None
    return None


def _find_processor(tokenizer: bytes, start: int) -> int:
    for begin in range(start, len(tokenizer), _SEARCHED_BYTES):
        if (at := tokenizer.find(_PROCESSOR, begin, begin + _SEARCHED_BYTES + len(_PROCESSOR) - 1)) >= 0:
            return at
    return -1


def first_token(processor: object) -> str:
    """The first special token of a ``post_processor`` of tokenizer.json, "" where text comes first."""
    if not isinstance(processor, dict):
        return ""
    match processor.get("type"):
        case "Sequence":
            parts = processor.get("processors")
            return next((token for part in parts if (token := first_token(part))), "") if isinstance(parts, list) else ""
        case "TemplateProcessing":
            single = processor.get("single")
            first = single[0] if isinstance(single, list) and single else None
            special = first.get("SpecialToken") if isinstance(first, dict) else None
            return str(special.get("id", "")) if isinstance(special, dict) else ""
        case "BertProcessing" | "RobertaProcessing":
            start = processor.get("cls")
            return str(start[0]) if isinstance(start, list) and start else ""
        case _:
            return ""


def _read_bytes(file: Path, limit: int) -> bytes | None:
    """None where there is no such file, or a larger one, or something else, like a pipe, of which reading waits for ever."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return None
            data = stream.read(limit + 1)
    except OSError:
        return None
    return data if len(data) <= limit else None


def _read_text(file: Path) -> str | None:
    data = _read_bytes(file, _MAX_TEMPLATE_BYTES)
    try:
        return data.decode().replace("\r\n", "\n").replace("\r", "\n") if data is not None else None
    except UnicodeDecodeError:
        return None


def _read_json(file: Path) -> dict[str, object]:
    data = _read_bytes(file, _MAX_CONFIG_BYTES)
    if data is None or data.count(b"[") + data.count(b"{") > _MAX_BRACKETS:
        return {}
    try:
        value = load_json(data)  # which bounds what is in it, and parses it in pieces
    except RequestError:
        return {}
    return value if isinstance(value, dict) else {}
