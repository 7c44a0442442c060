"""Conversations: OpenAI's messages enter, what a chat template takes leaves, with the images in their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import orjson

from modelium.gateway.openai.chat_fields import Message, Part, ToolCall
from modelium.gateway.openai.errors import BadRequest
from modelium.values import JsonValue

Object = dict[str, JsonValue]

# A template that walks through a message's content wants it as a list of parts; the others want a string. The repetitions are
# bounded because a template is somebody's: its text must not decide how long a search takes.
_LOOP = re.compile(r"\bfor\s{1,99}\w{1,99}\s{1,99}in\s{1,99}([\w.]{1,199})(\[\s{0,9}['\"]content['\"])?")
_TAKES_STRINGS = re.compile(r"content['\"\]]*\s+is\s+(not\s+)?(string|iterable|sequence)")
_BASE64 = re.compile(r"[A-Za-z0-9+/_=\s-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a chat template takes, and the images in their order."""

    messages: tuple[Object, ...]
    images: tuple[str, ...]  # base64


def conversation_of(messages: Sequence[Message], template: str, *, takes_images: bool) -> Conversation:
    """Raises ``BadRequest`` for what a part cannot be here."""
    parts_wanted, strings_wanted = _wanted(template)
    images: list[str] = []
    made: list[Object] = []
    for index, message in enumerate(messages):
        place = f"messages.{index}"
        content = _content(message, place, images, takes_images=takes_images)
        if isinstance(content, str) and not strings_wanted:
            content = [{"type": "text", "text": content}]
        if isinstance(content, list) and not parts_wanted:
            if any(part["type"] == "image" for part in content if isinstance(part, dict)):
                raise BadRequest(f"{place}: this model's chat template has no place for images", param=place)
            content = "\n".join(str(part["text"]) for part in content if isinstance(part, dict))
        role = "system" if message.role == "developer" and "developer" not in template else message.role
        one: Object = {"role": role, "content": content}
        if message.name is not None:
            one["name"] = message.name
        thoughts = message.reasoning if message.reasoning is not None else message.reasoning_content
        if thoughts is not None:  # templates know either word
            one["reasoning"] = one["reasoning_content"] = thoughts
        if message.tool_calls:
            one["tool_calls"] = [_call(call) for call in message.tool_calls]
        if message.tool_call_id is not None:
            one["tool_call_id"] = message.tool_call_id
        made.append(one)
    return Conversation(messages=tuple(made), images=tuple(images))


@lru_cache(maxsize=64)
def _wanted(template: str) -> tuple[bool, bool]:
    """Whether the template takes contents as parts, and as strings."""
    parts = any(_is_content(loop[1], subscripted=loop[2] is not None) for loop in _LOOP.finditer(template))
    return parts, not parts or _TAKES_STRINGS.search(template) is not None


def _is_content(path: str, *, subscripted: bool) -> bool:
    """``content``, ``message.content`` or ``message["content"]``, which is subscripted.

    >>> _is_content("message.content", subscripted=False), _is_content("tool.content", subscripted=False)
    (True, False)
    """
    names = path.split(".") + (["content"] if subscripted else [])
    if names[0] == "content":
        return True
    owners = (name.startswith("m") or "message" in name or "msg" in name for name in names)
    return any(owner and name.startswith("content") for owner, name in zip(owners, names[1:], strict=False))


def _content(message: Message, place: str, images: list[str], *, takes_images: bool) -> str | list[JsonValue]:
    if message.content is None:  # an assistant's message that only calls tools
        if message.role not in ("assistant", "tool"):
            raise BadRequest(f"{place}.content: is missing", param=f"{place}.content", code="missing_required_parameter")
        return ""
    if isinstance(message.content, str):
        return message.content
    made: list[JsonValue] = []
    for index, part in enumerate(message.content):
        where = f"{place}.content.{index}"
        match part.type:
            case "text" | "input_text" | "output_text":
                made.append({"type": "text", "text": part.text or ""})
            case "refusal":
                made.append({"type": "text", "text": part.refusal or ""})
            case "image_url" | "input_image":
                if not takes_images:
                    raise BadRequest(f"{where}: this model takes no images", param=where, code="unsupported_content")
                images.append(_image(part, where))
                made.append({"type": "image"})
            case other:
                raise BadRequest(
                    f"{where}: parts of type {other!r} are not supported; text and image_url are", param=where,
                    code="unsupported_content",
                )  # fmt: skip
    return made


def _image(part: Part, where: str) -> str:
    """The base64 text of a data: URL. Modelium fetches nothing: a URL in a request must not make it call others."""
    sent = part.image_url
    url = sent.get("url") if isinstance(sent, dict) else sent
    if not isinstance(url, str) or not url:
        raise BadRequest(f"{where}.image_url: expected an object with a url", param=where)
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        raise BadRequest(
            f"{where}.image_url: only data: URLs are taken, Modelium fetches nothing from elsewhere; send the image itself as "
            "data:image/png;base64,…",
            param=where,
            code="unsupported_content",
        )
    if not comma or not head.endswith(";base64") or not data or _BASE64.fullmatch(data) is None:
        raise BadRequest(f"{where}.image_url: expected data:image/…;base64,DATA", param=where)
    return data


def _call(call: ToolCall) -> Object:
    """Templates print arguments with ``tojson``, so they get the object and not its text."""
    arguments: JsonValue = call.function.arguments
    if isinstance(arguments, str):
        try:
            read = orjson.loads(arguments or "{}")
        except orjson.JSONDecodeError:
            read = arguments
        arguments = read
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}
