"""Fields of a request's body: what enters is whatever JSON held, what leaves is typed or an ``InvalidBody`` naming the field.

A field's name is its path as the user would write it: ``inputs``, ``parameters.top_k``, ``inputs[3].text_pair``.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Collection, Mapping

from modelium.errors import InvalidBody


def kind(value: object) -> str:
    """What ``value`` is, in the words of JSON.

    >>> kind(True), kind([1]), kind(None)
    ('a boolean', 'a list', 'null')
    """
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def wrong(field: str, expected: str, found: object) -> InvalidBody:
    shown = f"{found!r}" if isinstance(found, (int, float)) and not isinstance(found, bool) else kind(found)
    return InvalidBody(f"{field}: expected {expected}, found {shown}")


def string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise wrong(field, "a string", value)
    return value


def strings(value: object, field: str) -> list[str]:
    """A list of at least one string."""
    if not isinstance(value, list):
        raise wrong(field, "a list of strings", value)
    if not value:
        raise InvalidBody(f"{field}: the list is empty; send at least one string")
    return [string(item, f"{field}[{index}]") for index, item in enumerate(value)]


def mapping(value: object, field: str, required: Collection[str], optional: Collection[str] = ()) -> Mapping[str, object]:
    """An object with all of ``required`` and nothing beyond ``optional``."""
    if not isinstance(value, dict):
        raise wrong(field, f"an object with {', '.join(required)}", value)
    known = [*required, *optional]
    for key in value:
        if key not in known:
            raise InvalidBody(f"{field}.{key}: unknown field{nearest(key, known)}")
    for key in required:
        if key not in value:
            raise InvalidBody(f"{field}.{key}: is missing")
    return value


def nearest(word: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown word: the nearest known one, or all of them.

    >>> nearest("topk", ["top_k", "stride"])
    "; did you mean 'top_k'?"
    """
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else "; none are known here"


_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,")


_URL_SAFE = str.maketrans("-_", "+/")


def plain_base64(text: str) -> str:
    """``text`` as every decoder takes it: without line breaks, in the usual alphabet, filled up to four.

    >>> plain_base64("_-8\\n")
    '/+8='
    """
    plain = "".join(text.split()).translate(_URL_SAFE)
    return plain + "=" * (-len(plain) % 4)


def decoded(value: object, field: str) -> bytes:
    """The bytes of an image or a recording that came as base64, bare or as a ``data:`` URL."""
    text = string(value, field)
    if text.startswith(("http://", "https://")):
        raise InvalidBody(f"{field}: is a URL, and Modelium fetches nothing; send the bytes, raw or as base64")
    head = _DATA_URL.match(text)
    try:
        data = base64.b64decode(plain_base64(text[head.end() :] if head else text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidBody(f"{field}: is not base64: {error}") from error
    if not data:
        raise InvalidBody(f"{field}: holds no bytes")
    return data


def text_with_images(value: object, field: str) -> tuple[str, list[str]]:
    """``{"text", "image"}`` or ``{"text", "images"}``, as transformers' pipeline calls them: the text, and each image as bare
    base64. One of the two may be missing."""
    sent = mapping(value, field, (), ("text", "image", "images"))
    if sent.get("image") is not None and sent.get("images") is not None:
        raise InvalidBody(f"{field}.images: is another word for image; send one of them")
    name = "images" if sent.get("images") is not None else "image"
    images = sent.get(name)
    listed = [] if images is None else images if isinstance(images, list) else [images]
    if sent.get("text") is None and not listed:
        raise InvalidBody(f"{field}.text: is missing")
    text = string(sent.get("text") or "", f"{field}.text")
    for index, image in enumerate(listed):
        decoded(image, f"{field}.{name}[{index}]" if isinstance(images, list) else f"{field}.{name}")
    return text, [plain_base64(str(image).rpartition(",")[2]) for image in listed]
