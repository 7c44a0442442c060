"""A choice of a completion: pieces of generated text enter, vLLM's JSON leaves, with the prompt where it is to be told."""

from __future__ import annotations

from collections.abc import Sequence

from modelium.gateway.generation import Piece, PromptRead, TokenLogprob
from modelium.gateway.generation.vllm_runtime import ALL, token_of
from modelium.gateway.openai.answers import Json, best_of, least, named
from modelium.gateway.openai.choices import finish_reason
from modelium.gateway.openai.requests import CompletionRequest


class CompletionWriter:
    """``echo``: the prompt's text where it is known before the engine has read it."""

    def __init__(self, index: int, asked: CompletionRequest, echo: str) -> None:
        self._index = index
        self._asked = asked
        self._echoes = bool(asked.echo)
        self._echo = echo
        self._silent = self._echoes and asked.max_tokens == 0  # one token is generated all the same, for nobody
        alternatives = ALL if asked.logprob_token_ids else asked.logprobs
        self._logprobs = CompletionLogprobs(alternatives, ids=bool(asked.return_tokens_as_token_ids))
        self._pieces: list[Piece] = []
        self._begun = False

    def chunk(self, piece: Piece) -> Json | None:
        """What a streamed answer says of ``piece``."""
        if self._begun and not (piece.text or piece.finish_reason or piece.logprobs or piece.token_ids):
            return None
        return self._json([piece])

    def add(self, piece: Piece) -> None:
        """Keep it for ``whole``."""
        self._pieces.append(piece)

    def whole(self) -> Json:
        """The choice in one piece."""
        return {"finish_reason": "stop"} | {
            name: value for name, value in self._json(self._pieces).items() if name != "finish_reason" or value is not None
        }

    def beside(self) -> Json:
        """Nothing: each choice has its own prompt."""
        return {}

    def reasoning_tokens(self) -> int | None:
        """A completion is all answer."""
        return None

    def _json(self, pieces: Sequence[Piece]) -> Json:
        asked, first = self._asked, not self._begun
        self._begun = True
        read = next((piece.prompt for piece in pieces if piece.prompt is not None), None)
        shown = () if self._silent else pieces
        text = "".join(piece.text for piece in shown)
        if first and self._echoes and not asked.return_token_ids:
            text = (read.text if read is not None else self._echo) + text
        made: Json = {
            "index": self._index,
            "text": text,
            "logprobs": None,
            "finish_reason": next((reason for piece in reversed(pieces) if (reason := finish_reason(piece))), None),
        }
        if (stopped := next((piece.stop_reason for piece in pieces if piece.stop_reason is not None), None)) is not None:
            made["stop_reason"] = stopped
        tokens = [token for piece in shown for token in piece.logprobs]
        if asked.logprobs is not None:
            made["logprobs"] = self._logprobs.json(tokens, read if first and self._echoes else None)
        if asked.return_token_ids:
            made["token_ids"] = [token for piece in pieces for token in piece.token_ids]
            if first:
                made["prompt_token_ids"] = list(read.token_ids) if read is not None else None
        if first and read is not None and asked.wants_prompt_logprobs:
            made["prompt_logprobs"] = list(read.logprobs) or None
        return made


class CompletionLogprobs:
    """Adds up the offsets of tokens in one choice's text. ``ids``: tokens are called by their numbers."""

    def __init__(self, alternatives: int | None, *, ids: bool) -> None:
        self._alternatives = alternatives or 0
        self._ids = ids
        self._offset = 0

    def json(self, tokens: Sequence[TokenLogprob], read: PromptRead | None = None) -> Json:
        """Of the next ``tokens``, after those of the prompt where it is echoed; offsets go on where the last ones ended."""
        names: list[str] = []
        values: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        for place, position in zip(read.token_ids, read.logprobs, strict=False) if read is not None else ():
            if position is None:  # nothing stands before the first
                names.append(f"token_id:{place}" if self._ids else read.first_token if read is not None else "")
                values.append(None)
                tops.append(None)
            else:
                self._add(token_of(position, self._alternatives), names, values, tops)
        for token in tokens:
            self._add(token, names, values, tops)
        offsets = []
        for name in names:
            offsets.append(self._offset)
            self._offset += len(name)
        return {"tokens": names, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}

    def _add(
        self, token: TokenLogprob, names: list[str], values: list[float | None], tops: list[dict[str, float] | None]
    ) -> None:
        names.append(named(token.token, token.token_id, ids=self._ids))
        values.append(least(token.logprob))
        tops.append(best_of(token, ids=self._ids))
