"""Anthropic's JSON: a chat that is under way enters, its message or its events leave."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex

import orjson

from modelium.gateway.neighbours.chatting import Turn
from modelium.gateway.openai.values import Delta

Json = dict[str, object]

_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(status: int, message: str) -> Json:
    """An error in the shape that Anthropic's clients know."""
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def new_message(model: str) -> Json:
    """One of which nothing was said yet."""
    return {
        "id": f"msg_{token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }


def whole_message(model: str, turn: Turn) -> Json:
    """All that was said."""
    content: list[Json] = []
    if turn.reasoning:
        content.append({"type": "thinking", "thinking": turn.reasoning, "signature": ""})
    if turn.text or not (turn.calls or turn.reasoning):
        content.append({"type": "text", "text": turn.text})
    content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.parsed()} for call in turn.calls]
    return (
        new_message(model)
        | {"content": content, "stop_reason": stop_reason(turn)}
        | {
            "stop_sequence": turn.stop_text,
            "usage": usage_of(turn),
        }
    )


def stop_reason(turn: Turn) -> str:
    """In Anthropic's words."""
    if turn.stop_text is not None:
        return "stop_sequence"
    if turn.finish_reason == "length":
        return "max_tokens"
    return "tool_use" if turn.calls else "end_turn"


def usage_of(turn: Turn) -> Json:
    """In tokens. Those of the prompt that were in the cache are counted apart, as Anthropic counts them."""
    cached = {"cache_read_input_tokens": turn.cached_tokens} if turn.cached_tokens else {}
    return {"input_tokens": turn.prompt_tokens - turn.cached_tokens, **cached, "output_tokens": turn.output_tokens}


def event(body: Json) -> bytes:
    """A server-sent event; its name is its type."""
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + orjson.dumps(body) + b"\n\n"


class Blocks:
    """The blocks of a streamed message, one after the other: deltas enter, events leave."""

    def __init__(self) -> None:
        self._count = 0
        self._open: object = None  # "thinking", "text", or the place of a call

    def events(self, delta: Delta) -> Iterator[bytes]:
        """What ``delta`` adds."""
        if delta.reasoning:
            yield from self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""})
            yield self._delta({"type": "thinking_delta", "thinking": delta.reasoning})
        if delta.text:
            yield from self._begin("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": delta.text})
        for call in delta.calls:
            yield from self._begin(call.index, {"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
            if call.arguments:
                yield self._delta({"type": "input_json_delta", "partial_json": call.arguments})

    def end(self) -> Iterator[bytes]:
        """Nothing more comes. A message has a block at least."""
        if not self._count and self._open is None:
            yield from self._begin("text", {"type": "text", "text": ""})
        yield event({"type": "content_block_stop", "index": self._count})

    def _begin(self, what: object, block: Json) -> Iterator[bytes]:
        if self._open == what:
            return
        if self._open is not None:
            yield event({"type": "content_block_stop", "index": self._count})
            self._count += 1
        self._open = what
        yield event({"type": "content_block_start", "index": self._count, "content_block": block})

    def _delta(self, delta: Json) -> bytes:
        return event({"type": "content_block_delta", "index": self._count, "delta": delta})
