"""The languages of a translator (NLLB, M2M100, mBART …): the codes that its tokenizer has, and no other word of its vocabulary.

What enters: a tokenizer and codes of requests. What leaves: a code's token, and a tokenizer that reads this request's language.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

from .contract import BadInput, shown

# NLLB has its languages among its special tokens and in no list: eng_Latn, zho_Hans, and what fine-tunings add (tyv_Cyrl).
_FORM = re.compile(r"[a-z]{2,3}_([A-Z][a-z]{3}|[A-Z]{2})")
_SHOWN = 5


class Languages:
    """Empty for a tokenizer that has none (T5: there a language is words of a prompt)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens = _tokens_of(tokenizer) if hasattr(tokenizer, "src_lang") else {}
        self._ids = frozenset(self._tokens.values())
        self._own_source = getattr(tokenizer, "src_lang", None)
        own_target = getattr(tokenizer, "tgt_lang", None)
        self.target: int | None = self._tokens.get(own_target) if own_target else None

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def read_from(self, code: str | None) -> None:
        """Have the tokenizer read ``code``, or without one what the folder says; whatever the row before was in."""
        if code is not None:
            self.token(code, "src_lang")
        wanted = code or self._own_source
        if self and wanted != self._tokenizer.src_lang:
            self._tokenizer.src_lang = wanted

    def token(self, code: str, parameter: str) -> int:
        """The token of ``code``. Raises ``BadInput`` that names the nearest ones."""
        if not self:
            raise BadInput(f"parameter {parameter!r}: this model has no languages to choose from")
        if code not in self._tokens:
            raise BadInput(
                f"parameter {parameter!r}: {shown(code)!r} is none of this model's {len(self._tokens)} languages; "
                f"{'near' if (near := self.near(code)) else 'some'}: {', '.join(near or sorted(self._tokens)[:_SHOWN])}"
            )
        return self._tokens[code]

    def near(self, code: str) -> list[str]:
        """Codes of the same language in other words (en: eng_Latn, en_XX), then those that look alike."""
        wanted = re.split(r"[_-]", code[:100].lower())[0]
        codes = {known: known.partition("_")[0].lower() for known in sorted(self._tokens)}
        same = [known for known, word in codes.items() if wanted and (word.startswith(wanted) or wanted.startswith(word))]
        alike = difflib.get_close_matches(code[:100], codes, n=_SHOWN)
        return list(dict.fromkeys([*same, *alike]))[:_SHOWN]


def _tokens_of(tokenizer: Any) -> dict[str, int]:
    """Code → token id, by the list that the tokenizer has, else by the form of its special tokens."""
    words: dict[str, str] = getattr(tokenizer, "lang_code_to_token", None) or {}
    if words:
        return {code: int(tokenizer.convert_tokens_to_ids(word)) for code, word in words.items()}
    ids: dict[str, int] = getattr(tokenizer, "lang_code_to_id", None) or {}
    special = {word: tokenizer.convert_tokens_to_ids(word) for word in tokenizer.all_special_tokens if _FORM.fullmatch(word)}
    known = {**ids, **special}
    return {code: int(token) for code, token in known.items() if token is not None and token != tokenizer.unk_token_id}
