"""Right requests, and one request of one kind in the making: what is asked for enters, bytes leave."""

from __future__ import annotations

import copy
import enum
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Head = list[tuple[str, str | bytes]]
CRLF = b"\r\n"


class Port(enum.Enum):
    GATEWAY = "gateway"
    METRICS = "metrics"
    TRITON = "Triton"


class Then(enum.Enum):
    """What the client does when it has sent everything."""

    READ = "reads the answer"
    HALF_CLOSE = "sends no more, and reads the answer"
    HANG_UP = "resets the connection at once"
    READ_A_LITTLE = "resets the connection after the first bytes of the answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """``pieces`` are sent one after another, each on its way before the next."""

    kind: str
    port: Port
    pieces: tuple[bytes, ...]
    then: Then = Then.READ

    @property
    def asks_for_head(self) -> bool:
        return self.pieces[0][:5] == b"HEAD "


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What may be asked by name: one that writes text, one that embeds, one of tensors."""

    text: str
    embedder: str
    tensors: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """A request that is answered by 200, or refused for nothing but what the model itself cannot do."""

    path: str
    body: Json


def rights(models: Models) -> list[Right]:
    sampling: Json = {
        "temperature": 0.5, "top_p": 0.9, "n": 1, "stop": ["x"], "seed": 3, "max_tokens": 3, "presence_penalty": 0,
        "frequency_penalty": 0, "logit_bias": {}, "stream": False, "top_k": 3, "min_p": 0, "repetition_penalty": 1,
    }  # fmt: skip
    text: Json = {
        "max_new_tokens": 3,
        "do_sample": True,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["x"],
    }
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "content": "1", "tool_call_id": "1"},
        {"role": "user", "content": "hello"},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    return [
        Right(path=f"/predict/{models.text}", body={"inputs": "The old lighthouse", "parameters": text, "stream": False}),
        Right(
            path=f"/predict/{models.text}", body={"inputs": ["a", "b"], "parameters": {"max_new_tokens": 2, "details": True}}
        ),
        Right(path=f"/predict/{models.embedder}", body={"inputs": ["a", "b"], "parameters": {"truncate": True}}),
        Right(path=f"/predict/{models.embedder}", body={"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}),
        Right(path=f"/predict/{models.tensors}", body={"inputs": {"x": [[1.5, 2, 3, 4]]}}),
        Right(path="/v1/embeddings", body={"model": models.embedder, "input": ["a"], "encoding_format": "base64"}),
        Right(
            path="/v1/embeddings", body={"model": models.embedder, "input": [[1, 2], [3]], "encoding": "model", "user": "me"}
        ),
        Right(path="/v1/completions", body={"model": models.text, "prompt": "a", "logprobs": None, "echo": False, **sampling}),
        Right(
            path="/v1/chat/completions",
            body={"model": models.text, "messages": [{"role": "user", "content": "hello"}], **sampling},
        ),
        Right(
            path="/v1/chat/completions",
            body={
                "model": models.text,
                "messages": said,
                "max_completion_tokens": 2,
                "tools": tools,
                "tool_choice": "auto",
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
                "stream_options": {"include_usage": True},
                "chat_template_kwargs": {"a": 1},
            },
        ),
        Right(
            path="/v1/chat/completions",
            body={"model": models.text, "messages": [{"role": "user", "content": [image]}], "max_tokens": 2},
        ),
    ]


READ_ONLY = ("/", "/models", "/plan", "/health/live", "/health/ready", "/v1/models")
TRITON = (
    "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/{model}", "/v2/models/{model}/config",
    "/v2/models/{model}/ready",
    "/v2/repository/index", "/v2/repository/models/{model}/load", "/v2/repository/models/{model}/unload",
    "/v2/systemsharedmemory/status", "/v2/trace/setting", "/v2/logging", "/v2/models/stats",
)  # fmt: skip
ODD: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, -1e308, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, "", " ", "a",
    "\x00", "\ud800",
    "\U0001f600", "ä" * 300, "x" * 5000, "1", "true", "NaN", [], {}, [[]], [None], [1], ["a"], [1, "a"], [[1], ["a"]],
    [[[1]]],
    {"a": 1}, {"": ""}, {"__class__": "x"}, {"text": "a"}, {"url": "file:///etc/passwd"}, "http://127.0.0.1:1/x", "data:,",
    "../../etc/passwd",
    "{0.__class__}", "%s%n", "[MASK]", "<image>",
)  # fmt: skip
NAMES = (
    "", ".", "..", "...", "%2e%2e", "%00", "%ff", "%ud800", "%ED%A0%80", "%", "%2", "%zz", "a%2Fb", "a/b/c", "a:b", ":",
    "::", "a:b:c",
    "a--b", "--", "_0xff_", "_0x", "_0xzz_", "~", "@", "a@b", "a b", "a%20b", "%0d%0aX:%20y", "*", "con", "-", "-rf",
    "models", "load",
    "constructor", "__proto__", "{0}", "%7B%7D", "qwen2.5:7b", "org/name:tag", "🤗", "ä" * 90, "a" * 201, "a" * 4000,
    "/" * 50, "a/" * 100,
)  # fmt: skip


class Maker:
    """One request of one kind."""

    def __init__(self, kind: str, chance: random.Random, rights: list[Right], models: Models) -> None:
        self.kind = kind
        self.chance = chance
        self.rights = rights
        self.models = models

    def right(self) -> tuple[str, Json]:
        chosen = self.chance.choice(self.rights)
        return chosen.path, copy.deepcopy(chosen.body)

    def model(self) -> str:
        return self.chance.choice((self.models.text, self.models.embedder, self.models.tensors))

    def post(self, path: str, body: bytes, *, then: Then = Then.READ, head: Head | None = None) -> Malformed:
        return self.make("POST", path, body, then=then, head=head)

    def make(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        head: Head | None = None,
        length: str | None = None,
        port: Port = Port.GATEWAY,
        then: Then = Then.READ,
    ) -> Malformed:
        usual: Head = [("Host", "127.0.0.1"), ("Connection", "close"), ("Content-Type", "application/json")]
        others = {name for name, _ in head or ()}
        sent = [field for field in usual if field[0] not in others] + (head or [])
        if length is None and (body or method in ("POST", "PUT", "PATCH")):
            length = str(len(body))
        if length:
            sent.append(("Content-Length", length))
        raw = method.encode("utf-8", "surrogatepass") + b" " + path.encode("utf-8", "surrogatepass") + b" HTTP/1.1" + CRLF
        for name, value in sent:
            raw += name.encode("latin-1") + b": " + (value if isinstance(value, bytes) else value.encode("latin-1")) + CRLF
        pieces = (raw + CRLF + body,) if self.chance.random() < 0.8 else (raw + CRLF, body)
        return Malformed(kind=self.kind, port=port, pieces=tuple(piece for piece in pieces if piece), then=then)


def written(body: object) -> bytes:
    return json.dumps(body).encode()  # NaN, infinity and half a surrogate pair as JSON's extensions write them


def odd(chance: random.Random) -> object:
    return copy.deepcopy(chance.choice(ODD))  # what is made of it is changed again


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places_in(inner)
