"""The body of a prediction: raw bytes and a content type enter, what leaves is either JSON fields or one raw medium."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelium.errors import InvalidBody
from modelium.gateway.codecs.fields import kind, nearest, shown, wrong
from modelium.gateway.codecs.json_text import load_json
from modelium.values import Takes, Task

_NO_EMBEDDING_HAS = ("dimensions", "encoding_format")  # OpenAI's, which Hugging Face's client can send
_FIELDS = ("inputs", "parameters", "options", "stream", "model")
_WORDS = ("inputs", "prompt")  # of those who continue texts


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """``inputs`` as JSON held them (None for a raw medium), under the name ``called``; ``parameters`` and those ``at_root`` as
    they were sent; ``labels`` are zero-shot's candidates; ``stream``: the answer shall come in pieces.
    """

    inputs: object
    called: str = "inputs"
    parameters: Mapping[str, object] = field(default_factory=dict)
    at_root: Mapping[str, object] = field(default_factory=dict)
    raw: bytes | None = None
    labels: object = None
    stream: bool = False


def parse_body(task: Task, content_type: str, data: bytes) -> Body:
    """Parse ``data``, and check everything but the shape of ``inputs`` and what the parameters hold.

    Raises ``InvalidBody`` (it doesn't fit the task) or ``RequestError`` (broken JSON).
    """
    medium = task.row.raw_medium
    if not data:
        raise InvalidBody('the body is empty; send {"inputs": …}' + (" or raw bytes" if medium else ""))
    if task.row.continues:
        return _from_json(task, data)
    if content_type.startswith("multipart/"):
        raise InvalidBody("multipart forms are not read; send JSON or the raw bytes (curl --data-binary @FILE)")
    if medium and _is_raw(content_type, data):
        major = content_type.partition("/")[0]
        if major in ("image", "audio") and major != medium:
            raise InvalidBody(f"the body is {content_type}, but this model does {task.value}; send {medium}/* bytes")
        return Body(inputs=None, raw=data)
    if not medium and content_type.startswith(("image/", "audio/", "video/")):
        raise InvalidBody(f'the body is {content_type}, but this model does {task.value}; send JSON: {{"inputs": …}}')
    return _from_json(task, data)


def _is_raw(content_type: str, data: bytes) -> bool:
    """Clients that state no type (curl says form-urlencoded) are judged by the first byte: no image or sound begins with {."""
    if content_type.startswith(("image/", "audio/", "video/")):
        return True
    return content_type != "application/json" and data.lstrip()[:1] != b"{"


def _from_json(task: Task, data: bytes) -> Body:
    body = load_json(data)
    if not isinstance(body, dict):
        raise InvalidBody(f'the body: expected an object like {{"inputs": …}}, found {kind(body)}')
    row = task.row
    words = _WORDS if row.continues else _WORDS[:1]
    of_root = row.parameters if row.embeds_texts else {}  # where Hugging Face's schema of these tasks has its parameters
    at_root: dict[str, object] = {}
    if row.is_table and body.get("inputs") is None and "table" in body:
        body["inputs"] = {"table": body.pop("table")}  # where Hugging Face's client puts it
    for name, value in body.items():
        if name in of_root or (row.embeds_texts and name in _NO_EMBEDDING_HAS):
            at_root[name] = value
        elif name not in _FIELDS and name not in words:
            raise InvalidBody(f"unknown field{nearest(name, (*words, 'parameters'))}", field=shown(name))
    called = words[-1] if words[-1] in body else "inputs"
    if called == "prompt" and "inputs" in body:
        raise InvalidBody("is another word for inputs; send one of them", field=called)
    if called not in body:
        raise InvalidBody("is missing", field=called)
    parameters = body.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidBody(f"expected an object, found {kind(parameters)}", field="parameters")
    stream = body.get("stream")
    if row.continues and stream is not None and not isinstance(stream, bool):
        raise wrong("stream", "true or false", stream)
    sent = dict(parameters or {})
    labels = sent.pop("candidate_labels", None) if row.takes is Takes.TEXTS_WITH_LABELS else None
    return Body(inputs=body[called], called=called, parameters=sent, at_root=at_root, labels=labels, stream=bool(stream))
