"""Answers in the shapes of text-generation-inference: pieces enter, JSON values and server-sent events leave.

One event a token, as its clients expect; the text of all events together is the generated text. Where a runtime does not tell
its tokens apart (the python runtime, a piece of several bytes), a token's ``id`` and ``logprob`` are null.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from modelium.errors import (
    BodyTooLarge,
    InferenceFailed,
    InvalidBody,
    ModeliumError,
    QueueFull,
    TritonUnavailable,
)
from modelium.gateway.generation.huggingface import Options
from modelium.gateway.generation.values import Piece, TokenLogprob

Json = dict[str, object]


class Answer:
    """What was generated so far for one input."""

    def __init__(self, options: Options, prompt: str, *, sequence: int = 0) -> None:
        self._options = options
        self._prompt = prompt
        self._seed = None if options.seed is None else options.seed + sequence
        self._texts: list[str] = []
        self._tokens: list[Json] = []
        self._top_tokens: list[list[Json]] = []
        self._count = 0
        self._prompt_tokens: int | None = None
        self._reason: str | None = None
        self._raw = ""  # the tokens' own texts: there, a stop string is still in them
        self._stopped = False

    def add(self, piece: Piece) -> list[bytes]:
        """Take a piece in; its events leave, one a token."""
        self._texts.append(piece.text)
        self._count += piece.output_tokens
        self._prompt_tokens = piece.prompt_tokens if piece.prompt_tokens is not None else self._prompt_tokens
        self._reason = piece.finish_reason
        self._raw += "".join(token.token for token in piece.logprobs)
        self._stopped = piece.finish_reason == "stop" and any(word in self._raw for word in self._options.stop)
        tokens = list(_tokens(piece, ended=piece.finish_reason == "stop" and not self._stopped))
        if not tokens and piece.text:  # the runtime does not say which tokens these are
            tokens = [_token(None, piece.text)]
        self._tokens += tokens
        tops = [[_alternative(*one) for one in token.alternatives] for token in piece.logprobs]
        if self._options.top_tokens:
            self._top_tokens += tops
        events: list[Json] = []
        for place, token in enumerate(tokens):
            event: Json = {"index": len(self._tokens) - len(tokens) + place + 1, "token": token}
            if self._options.top_tokens:
                event["top_tokens"] = tops[place] if place < len(tops) else []
            events.append(event | {"generated_text": None, "details": None})
        if piece.finish_reason is not None:
            if not events:  # the end came with no token of its own
                events.append({"index": len(self._tokens) + 1, "token": _token(None, "", special=True)})
            events[-1] |= {"generated_text": self.text, "details": self._stream_details()}
        return [b"data:" + orjson.dumps(event) + b"\n\n" for event in events]

    @property
    def text(self) -> str:
        """What was generated so far, behind the prompt where the request wants it."""
        text = "".join(self._texts)
        return self._prompt + text if self._options.full_text else text

    def result(self) -> Json:
        """The answer of a request that is no stream."""
        if not self._options.details:
            return {"generated_text": self.text}
        details: Json = {
            "finish_reason": self._finish_reason(),
            "generated_tokens": self._count,
            "seed": self._seed,
            "prefill": [],
            "tokens": self._tokens,
        }
        if self._options.top_tokens:
            details["top_tokens"] = self._top_tokens
        return {"generated_text": self.text, "details": details}

    def _stream_details(self) -> Json:
        return {
            "finish_reason": self._finish_reason(),
            "generated_tokens": self._count,
            "seed": self._seed,
            "input_length": self._prompt_tokens,
        }

    def _finish_reason(self) -> str:
        """vLLM says "stop" for the end token and for a stop string."""
        if self._reason != "stop":
            return self._reason or "length"
        return "stop_sequence" if self._stopped else "eos_token"


def error_event(error: ModeliumError, words: str) -> bytes:
    """The event of an error after the first byte, in these words; ``error_type`` is one of those that Hugging Face's clients
    know."""
    match error:
        case InvalidBody() | InferenceFailed() | BodyTooLarge():
            kind = "validation"
        case QueueFull() | TritonUnavailable():
            kind = "overloaded"
        case _:
            kind = "generation"
    return b"data:" + orjson.dumps({"error": words, "type": error.type, "error_type": kind}) + b"\n\n"


def _tokens(piece: Piece, *, ended: bool) -> Iterator[Json]:
    """The tokens of a piece, whose texts together are the piece's: an end token has none, and neither has one whose text comes
    with a later piece (part of a letter, of what may be a stop string)."""
    texts = _texts(piece.text, piece.logprobs)
    last = len(piece.logprobs) - 1
    for place, (token, text) in enumerate(zip(piece.logprobs, texts, strict=True)):
        yield _token(token, text, special=ended and place == last and not text)


def _texts(text: str, tokens: Sequence[TokenLogprob]) -> list[str]:
    if len(tokens) > 1 and "".join(token.token for token in tokens) == text:
        return [token.token for token in tokens]
    return [""] * (len(tokens) - 1) + [text] if tokens else []


def _token(token: TokenLogprob | None, text: str, *, special: bool = False) -> Json:
    if token is None:
        return {"id": None, "text": text, "logprob": None, "special": special}
    return {"id": token.token_id, "text": text, "logprob": token.logprob, "special": special}


def _alternative(text: str, logprob: float) -> Json:
    return {"id": None, "text": text, "logprob": logprob, "special": False}
