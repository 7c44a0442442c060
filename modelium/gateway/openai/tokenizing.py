"""A model's tokenizer in the controller, for what only it can do: token ids enter, text leaves; texts enter, counts leave.

Prompts are not tokenized here, the engine does that. Tokenizers of large models take a second and 100 MB, so some are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from modelium.gateway.openai.errors import Refused
from modelium.values import ModelProfile

_MAX_BYTES = 256 * 2**20


def decode(profile: ModelProfile, tokens: Sequence[int], *, param: str) -> str:
    """The text of ``tokens``. Blocks while a tokenizer is read: call it in a thread."""
    tokenizer = _tokenizer(profile)
    if tokenizer is None:
        raise Refused(f"{param}: {profile.name!r} has no tokenizer.json to read token ids with; send text", param=param)
    if any(not 0 <= token < tokenizer.get_vocab_size() for token in tokens):
        size = tokenizer.get_vocab_size()
        raise Refused(f"{param}: {profile.name!r} has token ids from 0 to {size - 1}", param=param)
    text: str = tokenizer.decode(list(tokens), skip_special_tokens=False)
    return text


def count_tokens(profile: ModelProfile, texts: Sequence[str]) -> int:
    """How many tokens the model reads of ``texts``, special ones included; 0 where it has no tokenizer.json to tell."""
    tokenizer = _tokenizer(profile)
    if tokenizer is None:
        return 0
    limit = profile.max_length
    lengths = (len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts)))
    return sum(min(length, limit) if limit is not None else length for length in lengths)


def _tokenizer(profile: ModelProfile) -> Tokenizer | None:
    folder = profile.path if profile.path.is_dir() else profile.path.parent
    return _read(folder / "tokenizer.json", profile.fingerprint)


@lru_cache(maxsize=16)
def _read(file: Path, fingerprint: str) -> Tokenizer | None:
    """``fingerprint`` makes a new revision a new tokenizer."""
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            return None
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # the library raises plain Exception for whatever it cannot read
        return None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
