"""Fields of a request's body: what enters is whatever JSON held, what leaves is typed or an ``InvalidBody`` naming the field.

A field's name is its path as the user would write it: ``inputs``, ``parameters.top_k``, ``inputs[3].text_pair``.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Collection, Iterator, Mapping

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
    """The error for a value of the wrong kind."""
    said = shown(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else kind(found)
    return InvalidBody(f"expected {expected}, found {said}", field=field)


MOST_SHOWN = 100  # characters of what was sent, in a message
MOST_ITEMS = 2**14  # texts, pairs, pictures … of one request
SHAPE_SIZE, SHAPE_DEPTH = 2**18, 32  # of a JSON schema, a grammar, a regular expression: characters and values
MOST_CELLS = 2**17  # where each item of a request has several texts
MOST_TEXT_CHARACTERS = 2**22  # of one text: a million tokens, more than any model reads


def shown(sent: object) -> str:
    """What was sent, as a message may quote it.

    >>> shown("abc"), len(shown("a" * 10**6))
    ('abc', 101)
    """
    said = sent if isinstance(sent, str) else repr(sent) if isinstance(sent, int | float | None) else kind(sent)
    return said if len(said) <= MOST_SHOWN else f"{said[:MOST_SHOWN]}…"


def text_of(value: object, field: str) -> str:
    """A string that a model shall read."""
    words = string(value, field)
    if len(words) > MOST_TEXT_CHARACTERS:
        raise InvalidBody(f"a text has at most {MOST_TEXT_CHARACTERS:,} characters, found {len(words):,}", field=field)
    return words


def items_of(value: list[object], field: str) -> list[object]:
    """``value``, if it is not longer than any request needs."""
    if len(value) > MOST_ITEMS:
        raise InvalidBody(
            f"one request takes at most {MOST_ITEMS:,} of them, found {len(value):,}; send several requests", field=field
        )
    return value


def check_cells(rows: int, columns: int, field: str) -> None:
    """A row is as long as the longest one."""
    if rows * columns > MOST_CELLS:
        raise InvalidBody(
            f"{rows:,} of them with up to {columns:,} each are too many at once; send several requests", field=field
        )


def excess(value: object, *, size: int, depth: int) -> str:
    """What is too much about ``value``, which may have ``size`` characters and values; "" where nothing is.

    >>> excess([[1]], size=9, depth=1), excess({"a": "b"}, size=9, depth=2)
    ('its lists and objects may lie 1 deep in one another', '')
    """
    found, level, values = 0, 0, [value]
    while values:
        if level > depth:
            return f"its lists and objects may lie {depth} deep in one another"
        level += 1
        inside: list[object] = []
        for one in values:
            found += 1 + (len(one) if isinstance(one, str) else 0)
            if isinstance(one, dict):
                found += sum(map(len, one))
                inside += one.values()
            elif isinstance(one, list):
                inside += one
            if found + len(inside) > size:
                return f"is too large: it may have {size:,} characters and values"
        values = inside
    return ""


def string(value: object, field: str) -> str:
    """``value``, if it is one. Raises ``InvalidBody``."""
    if not isinstance(value, str):
        raise wrong(field, "a string", value)
    return value


def strings(value: object, field: str) -> list[str]:
    """A list of at least one string."""
    if not isinstance(value, list):
        raise wrong(field, "a list of strings", value)
    if not value:
        raise InvalidBody("the list is empty; send at least one string", field=field)
    return [text_of(item, f"{field}[{index}]") for index, item in enumerate(items_of(value, field))]


def mapping(value: object, field: str, required: Collection[str], optional: Collection[str] = ()) -> Mapping[str, object]:
    """An object with all of ``required`` and nothing beyond ``optional``."""
    if not isinstance(value, dict):
        raise wrong(field, f"an object with {', '.join(required)}", value)
    known = [*required, *optional]
    for key in value:
        if key not in known:
            raise InvalidBody(f"unknown field{nearest(key, known)}", field=f"{field}.{shown(key)}")
    for key in required:
        if key not in value:
            raise InvalidBody("is missing", field=f"{field}.{key}")
    return value


def nearest(word: str, known: Collection[str]) -> str:
    """The end of a sentence about an unknown word: the nearest known one, or all of them.

    >>> nearest("topk", ["top_k", "stride"])
    "; did you mean 'top_k'?"
    """
    near = difflib.get_close_matches(word[:MOST_SHOWN], known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(known)}" if known else "; none are known here"


_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,")


_PIECE_CHARACTERS = 2**20  # a multiple of four
_URL_SAFE = str.maketrans("-_", "+/")


def plain_base64(text: str) -> str:
    """``text`` as every decoder takes it: without line breaks, in the usual alphabet, filled up to four.

    >>> plain_base64("_-8\\n")
    '/+8='
    """
    pieces = list(_plain_pieces(text))
    # What is plain as it came, as most is, need not be put together again.
    plain = text if sum(map(len, pieces)) == len(text) and "-" not in text and "_" not in text else "".join(pieces)
    return plain + "=" * (-len(plain) % 4) if len(plain) % 4 else plain


def _plain_pieces(text: str) -> Iterator[str]:
    """Not all at once: each step of 60 MB would hold the interpreter for a tenth of a second."""
    for start in range(0, len(text), _PIECE_CHARACTERS):
        yield "".join(text[start : start + _PIECE_CHARACTERS].split()).translate(_URL_SAFE)


def _from_base64(plain: str) -> bytes:
    """Raises ``binascii.Error``. In pieces, of which only the last may end with less than three bytes."""
    made: list[bytes] = []
    for start in range(0, len(plain), _PIECE_CHARACTERS):
        piece = plain[start : start + _PIECE_CHARACTERS]
        made.append(base64.b64decode(piece, validate=True))
        if start + len(piece) < len(plain) and piece.endswith("="):
            raise binascii.Error("Excess data after padding")
    return b"".join(made)


def decoded(value: object, field: str) -> bytes:
    """The bytes of an image or a recording that came as base64, bare or as a ``data:`` URL."""
    text = string(value, field)
    if text.startswith(("http://", "https://")):
        raise InvalidBody("is a URL, and Modelium fetches nothing; send the bytes, raw or as base64", field=field)
    head = _DATA_URL.match(text)
    try:
        data = _from_base64(plain_base64(text[head.end() :] if head else text))
    except (binascii.Error, ValueError) as error:
        raise InvalidBody(f"is not base64: {error}", field=field) from error
    if not data:
        raise InvalidBody("holds no bytes", field=field)
    return data


def text_with_images(value: object, field: str) -> tuple[str, list[str]]:
    """``{"text", "image"}`` or ``{"text", "images"}``, as transformers' pipeline calls them: the text, and each image as bare
    base64. One of the two may be missing."""
    sent = mapping(value, field, (), ("text", "image", "images"))
    if sent.get("image") is not None and sent.get("images") is not None:
        raise InvalidBody("is another word for image; send one of them", field=f"{field}.images")
    name = "images" if sent.get("images") is not None else "image"
    images = sent.get(name)
    several = [] if images is None else items_of(images, f"{field}.{name}") if isinstance(images, list) else [images]
    if sent.get("text") is None and not several:
        raise InvalidBody("is missing", field=f"{field}.text")
    prompt = text_of(sent.get("text") or "", f"{field}.text")
    for index, image in enumerate(several):
        decoded(image, f"{field}.{name}[{index}]" if isinstance(images, list) else f"{field}.{name}")
    return prompt, [plain_base64(str(image).rpartition(",")[2]) for image in several]
