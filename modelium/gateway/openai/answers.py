"""OpenAI's JSON: deltas and pieces enter, whole answers and chunks leave."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from modelium.gateway.generation import TokenLogprob
from modelium.gateway.openai.values import CallDelta, Delta, Usage

Json = dict[str, object]

_IMPOSSIBLE = -9999.0  # JSON has no minus infinity
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every chunk of an answer repeats."""

    kind: str  # "chat.completion" · "text_completion"
    model: str
    fingerprint: str
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    def json(self, *, chunk: bool = False) -> Json:
        """The fields that every answer, and every chunk, begins with."""
        return {
            "id": self.id,
            "object": self.kind + (".chunk" if chunk and self.kind == "chat.completion" else ""),
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def new_head(kind: str, model: str, fingerprint: str) -> Head:
    """With an id of its own."""
    prefix = "chatcmpl-" if kind == "chat.completion" else "cmpl-"
    return Head(kind=kind, model=model, fingerprint=f"fp_{fingerprint[:12]}", id=prefix + secrets.token_hex(12))


def event(value: Json) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def chunk(head: Head, choice: Json, beside: Json) -> bytes:
    """One event. ``beside``: what it says of the whole answer."""
    return event({**head.json(chunk=True), "choices": [choice], **beside})


def usage_chunk(head: Head, usage: Usage) -> bytes:
    """The last chunk of a stream whose client wants to know the usage."""
    return event({**head.json(chunk=True), "choices": [], "usage": usage.json()})


def whole(head: Head, choices: Sequence[Json], usage: Usage, beside: Json) -> Json:
    """An answer that is no stream."""
    return {**head.json(), "choices": list(choices), "usage": usage.json(), **beside}


# -- chats ---------------------------------------------------------------------------------------------------------


def chat_delta(index: int, delta: Delta, *, first: bool, logprobs: bool, ids: bool = False) -> Json:
    """A choice in a chunk of a chat; the ``first`` one names the role."""
    content: Json = {"role": "assistant", "content": delta.text} if first else {}
    if delta.text:
        content["content"] = delta.text
    if first and not delta.text and delta.calls:
        content["content"] = None
    if delta.reasoning:
        content |= _thoughts(delta.reasoning)
    if delta.calls:
        content["tool_calls"] = [_call_delta(call) for call in delta.calls]
    return {
        "index": index,
        "delta": content,
        "logprobs": _chat_logprobs(delta.logprobs, ids=ids) if logprobs and delta.logprobs else None,
        "finish_reason": delta.finish_reason,
    }


def chat_choice(index: int, deltas: Sequence[Delta], *, logprobs: bool, ids: bool = False) -> Json:
    """A choice of a whole chat."""
    text = "".join(delta.text for delta in deltas)
    reasoning = "".join(delta.reasoning for delta in deltas)
    calls: dict[int, tuple[CallDelta, list[str]]] = {}
    for delta in deltas:
        for call in delta.calls:
            calls.setdefault(call.index, (call, []))[1].append(call.arguments)
    reason = next((delta.finish_reason for delta in reversed(deltas) if delta.finish_reason), "stop")
    if calls and not is_json(half := "".join(calls[max(calls)][1])):
        del calls[max(calls)]
        text += half
        reason = "stop" if reason == "tool_calls" and not calls else reason
    message: Json = {"role": "assistant", "content": text or (None if calls or reasoning else ""), "refusal": None}
    if reasoning:
        message |= _thoughts(reasoning)
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": "".join(arguments)}}
            for call, arguments in calls.values()
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": _chat_logprobs([token for delta in deltas for token in delta.logprobs], ids=ids) if logprobs else None,
        "finish_reason": reason,
    }


def is_json(text: str) -> bool:
    """Is it all there? Who runs calls must not run half of one."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _thoughts(text: str) -> Json:
    """vLLM's word since 0.12, and the older one."""
    return {"reasoning": text, "reasoning_content": text}


def _call_delta(call: CallDelta) -> Json:
    function: Json = {"arguments": call.arguments}
    if not call.id:
        return {"index": call.index, "function": function}
    return {"index": call.index, "id": call.id, "type": "function", "function": {"name": call.name, **function}}


def _chat_logprobs(tokens: Sequence[TokenLogprob], *, ids: bool) -> Json:
    return {
        "content": [
            {
                **_token(named(token.token, token.token_id, ids=ids), token.logprob),
                "bytes": list(token.token.encode()),
                "top_logprobs": [
                    _token(named(text, one, ids=ids), logprob)
                    for (text, logprob), one in zip(token.alternatives, token.alternative_ids, strict=True)
                ],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def _token(text: str, logprob: float) -> Json:
    return {"token": text, "logprob": least(logprob), "bytes": list(text.encode())}


# -- tokens --------------------------------------------------------------------------------------------------------


def named(text: str, token_id: int, *, ids: bool) -> str:
    """How a token is called: by its text, or by its number where that is wanted, since a token may be half a letter."""
    return f"token_id:{token_id}" if ids else text


def least(logprob: float) -> float:
    """JSON has no minus infinity."""
    return max(logprob, _IMPOSSIBLE)


def best_of(token: TokenLogprob, *, ids: bool = False) -> dict[str, float]:
    """The best ones and the one that was taken; of two ids with one text the likelier counts."""
    best: dict[str, float] = {}
    for (text, logprob), token_id in zip(token.alternatives, token.alternative_ids, strict=True):
        best.setdefault(named(text, token_id, ids=ids), least(logprob))
    best.setdefault(named(token.token, token.token_id, ids=ids), least(token.logprob))
    return best
