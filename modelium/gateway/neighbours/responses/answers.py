"""The JSON of ``/v1/responses``: deltas of a chat enter, items and events leave.

A whole answer has the items that the events of a streamed one add up to, so the two cannot differ.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from secrets import token_hex

import orjson

from modelium.gateway.neighbours.chatting import Turn
from modelium.gateway.openai.values import Delta

Json = dict[str, object]


class Answer:
    """One answer: its items as far as they are there."""

    def __init__(self, model: str, echoed: Mapping[str, object]) -> None:
        self._head: Json = {
            "id": f"resp_{token_hex(16)}",
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            "background": False,
            "error": None,
            "metadata": {},
            "previous_response_id": None,
            "store": False,
            "truncation": "disabled",
            **echoed,
        }
        self._items: list[Json] = []
        self._open: object = None  # "reasoning", "message", or the place of a call
        self._text: list[str] = []
        self._events = 0

    # -- events ----------------------------------------------------------------------------------------------------

    def begin(self) -> Iterator[bytes]:
        """Nothing was said yet."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._response("in_progress"))

    def add(self, delta: Delta) -> Iterator[bytes]:
        """What ``delta`` adds."""
        if delta.reasoning:
            item: Json = {"type": "reasoning", "id": f"rs_{token_hex(12)}", "summary": [], "content": []}
            yield from self._item("reasoning", item, {"type": "reasoning_text", "text": ""})
            yield self._delta("response.reasoning_text.delta", delta.reasoning, content_index=0)
        if delta.text:
            yield from self._message()
            yield self._delta("response.output_text.delta", delta.text, content_index=0, logprobs=[])
        for call in delta.calls:
            named: Json = {"type": "function_call", "id": f"fc_{token_hex(12)}", "call_id": call.id, "name": call.name}
            yield from self._item(call.index, named | {"arguments": ""}, None)
            if call.arguments:
                yield self._delta("response.function_call_arguments.delta", call.arguments)

    def end(self, turn: Turn) -> Iterator[bytes]:
        """Nothing more comes."""
        if not self._items:
            yield from self._message()
        cut = turn.finish_reason == "length"
        yield from self._close("incomplete" if cut else "completed")
        yield self._event("response.incomplete" if cut else "response.completed", response=self.whole(turn))

    def error(self, message: str, code: str | None) -> bytes:
        """The last event of an answer that could not go on: as OpenAI's page has it, and in ``error`` where its clients look
        for it. Without that, openai's helper complains that the answer had not been created."""
        said = {"type": "server_error", "message": message, "code": code, "param": None}
        return self._event("error", message=message, code=code, param=None, error=said)

    def whole(self, turn: Turn) -> Json:
        """All that was said, once it has ended."""
        cut = turn.finish_reason == "length"
        return self._response("incomplete" if cut else "completed") | {
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": {
                "input_tokens": turn.prompt_tokens,
                "input_tokens_details": {"cached_tokens": turn.cached_tokens},
                "output_tokens": turn.output_tokens,
                "output_tokens_details": {"reasoning_tokens": turn.reasoning_tokens},
                "total_tokens": turn.prompt_tokens + turn.output_tokens,
            },
        }

    # -- items -----------------------------------------------------------------------------------------------------

    def _message(self) -> Iterator[bytes]:
        item: Json = {"type": "message", "id": f"msg_{token_hex(12)}", "role": "assistant", "content": []}
        return self._item("message", item, {"type": "output_text", "text": "", "annotations": [], "logprobs": []})

    def _item(self, what: object, item: Json, part: Json | None) -> Iterator[bytes]:
        if self._open == what:
            return
        yield from self._close("completed")
        self._open, self._text = what, []
        self._items.append(item | {"status": "in_progress"})
        yield self._event("response.output_item.added", output_index=len(self._items) - 1, item=dict(self._items[-1]))
        if part is not None:
            yield self._event("response.content_part.added", **self._place(), content_index=0, part=part)
            self._items[-1]["content"] = [part]

    def _delta(self, kind: str, delta: str, **more: object) -> bytes:
        self._text.append(delta)
        return self._event(kind, **self._place(), delta=delta, **more)

    def _close(self, status: str) -> Iterator[bytes]:
        if self._open is None:
            return
        item, text = self._items[-1], "".join(self._text)
        place = self._place()
        if item["type"] == "function_call":
            item["arguments"] = text
            yield self._event("response.function_call_arguments.done", **place, name=item["name"], arguments=text)
        else:
            content = item["content"]
            assert isinstance(content, list)
            [part] = item["content"] = [content[0] | {"text": text}]
            more: Json = {"logprobs": []} if item["type"] == "message" else {}
            kind = "response.output_text.done" if more else "response.reasoning_text.done"
            yield self._event(kind, **place, content_index=0, text=text, **more)
            yield self._event("response.content_part.done", **place, content_index=0, part=part)
        item["status"] = status
        yield self._event("response.output_item.done", output_index=place["output_index"], item=dict(item))
        self._open = None

    def _place(self) -> Json:
        return {"output_index": len(self._items) - 1, "item_id": self._items[-1]["id"]}

    def _response(self, status: str) -> Json:
        return self._head | {"status": status, "incomplete_details": None, "output": list(self._items), "usage": None}

    def _event(self, kind: str, **body: object) -> bytes:
        number, self._events = self._events, self._events + 1
        written = orjson.dumps({"type": kind, "sequence_number": number, **body})
        return b"event: " + kind.encode() + b"\ndata: " + written + b"\n\n"
