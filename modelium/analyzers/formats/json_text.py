"""JSON from a folder: whole, cut short, or broken.

What enters: bytes that somebody else wrote. What leaves: an object with typed getters, or ``NotYet`` / ``Rejected``. A
strict prefix of a JSON object is never taken for whole, and never for broken: the rest may still arrive.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Mapping

import orjson

from modelium.analyzers.folder import File, Folder, refuse_lfs_pointer, refuse_preallocated
from modelium.analyzers.formats.unreal_numbers import find_unreal_number
from modelium.analyzers.verdict import Rejected, not_whole

MAX_CONFIG_BYTES = 64 * 2**20
MAX_VALUES = 4_000_000  # a header of 250,000 tensors has 3,000,000; each may take 64 bytes and more once it is parsed
_CHUNK = 2**20
_NEITHER_QUOTE_NOR_BRACKET = bytes(set(range(256)) - set(b'"{}[]'))
_CUT_LITERALS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")

JsonObject = Mapping[str, object]


def read_object(folder: Folder, name: str, limit_bytes: int = MAX_CONFIG_BYTES) -> JsonObject:
    """The object in file ``name``, which the caller knows to be listed."""
    data = folder.read(name, limit_bytes)
    value = parse_object(data, name)
    if unreal := find_unreal_number(data, value):
        raise Rejected(f"{name}: {unreal}", f"put the number that is meant into {name}, or copy the model's own")
    return value


def parse_object(data: bytes, name: str) -> JsonObject:
    """``data`` as a JSON object."""
    value = parse(data, name)
    if not isinstance(value, dict):
        raise Rejected(f"{name} holds a JSON {type(value).__name__}, not an object", f"replace {name} by the model's own")
    return value


def parse_index(data: bytes, name: str) -> JsonObject:
    """``data`` as a JSON object of texts and few numbers, which may be of 10 MB: what is not plain goes the long way.

    Not for configurations: orjson takes a whole number of more than 64 bits for a real one.
    """
    refuse_crowded(data, name)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else parse_object(data, name)


def parse(data: bytes, name: str) -> object:
    """``data`` as JSON; the end that is missing is told from what is wrong in the middle."""
    text_bytes = data.rstrip(b"\0")  # the tail of a file reserved at its full size
    if not text_bytes.strip():
        raise not_whole(name, 0, len(data) or None, "empty so far")
    refuse_byte_order_mark(name, text_bytes)
    refuse_crowded(text_bytes, name)
    try:
        value: object = json.loads(text_bytes.decode())  # UTF-8 alone: json would take bytes of UTF-16 too, transformers not
    except UnicodeDecodeError as error:
        if error.end >= len(text_bytes) and "unexpected end" in error.reason:
            raise not_whole(name, len(text_bytes), detail="cut short so far") from None
        raise _broken(name, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        if is_cut_short(error):
            raise not_whole(name, len(text_bytes), detail="cut short so far") from None
        raise _broken(name, f"{error.msg}, line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise _broken(name, "nested too deeply") from None
    except ValueError as error:  # a number of more than 4,300 digits
        raise _broken(name, str(error).split(";")[0]) from None
    if len(text_bytes) != len(data):
        raise not_whole(name, len(text_bytes), len(data))
    return value


def refuse_byte_order_mark(name: str, head: bytes) -> None:
    """Editors on Windows write one. transformers, tokenizers and sentence-transformers fail on it when they load the model."""
    if head.startswith(codecs.BOM_UTF8):
        why = f"{name} begins with a byte order mark, which transformers does not read"
        raise Rejected(why, f"save {name} as UTF-8 without BOM")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Rejected(f"{name} is UTF-16, which transformers does not read", f"save {name} as UTF-8")


def refuse_crowded(data: bytes, name: str) -> None:
    """Refuse JSON of more values than any model has, before it is parsed: 64 MB of empty lists would be 1.7 GB of Python's.

    Counted are the characters that begin or part values, those inside texts too: never fewer than there are.
    """
    if len(data) <= MAX_VALUES:
        return
    count = data.count(b",") + data.count(b"[") + data.count(b"{") + data.count(b":")
    if count > MAX_VALUES:
        raise Rejected(f"{name} has some {count:,} values; at most {MAX_VALUES:,} are read", "is it the right file?")


def is_cut_short(error: json.JSONDecodeError) -> bool:
    """Whether more text could mend it: the fault is at the very end."""
    text = error.doc.rstrip()
    rest = text[error.pos :]
    if not rest:
        return True
    if error.msg.startswith("Unterminated string"):
        return True
    if error.msg.startswith("Invalid \\"):  # \u12 and nothing behind it
        return re.fullmatch(r"\\?u?[0-9a-fA-F]{0,4}", rest) is not None
    if re.fullmatch(r"\.|[eE][+-]?", rest):  # the rest of a number: what is there of it parses by itself
        return True
    return any(word.startswith(rest) for word in _CUT_LITERALS)


def prove_whole(file: File, *, thorough: bool) -> None:
    """That a JSON object which nobody needs parsed (``tokenizer.json``: up to 20 MB) is not cut short.

    Thorough: brackets outside strings balance, a proof; a megabyte at a time, so that other threads go on. Otherwise the last
    character alone, for files that nobody has written to for long.
    """
    with file.open() as stream:
        head = stream.read(1024)
        refuse_lfs_pointer(file, head)
        refuse_preallocated(file, head)
        refuse_byte_order_mark(file.name, head)
        stream.seek(max(0, file.size - 64))
        tail = stream.read(64)
        if not tail.rstrip(b" \t\r\n").endswith((b"}", b"]")):
            raise not_whole(file.name, file.size, detail="cut short so far")
        if not thorough:
            return
        stream.seek(0, os.SEEK_SET)
        depth, in_string, carried = 0, False, b""
        while chunk := stream.read(_CHUNK):
            chunk = carried + chunk
            backslashes = len(chunk) - len(chunk.rstrip(b"\\"))
            carried = b"\\" if backslashes % 2 else b""
            if carried:
                chunk = chunk[:-1]
            bare = chunk.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NEITHER_QUOTE_NOR_BRACKET)
            pieces = bare.replace(b'""', b"").split(b'"')  # two quotes with no bracket between them change nothing
            outside = b"".join(pieces[1 if in_string else 0 :: 2])
            in_string ^= len(pieces) % 2 == 0
            depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
        if depth or in_string:
            raise not_whole(file.name, file.size, detail="cut short so far")


def text(source: JsonObject, key: str) -> str:
    """The text under ``key``, "" where there is none."""
    value = source.get(key)
    return value if isinstance(value, str) else ""


def integer(source: JsonObject, *keys: str) -> int | None:
    """The first of ``keys`` that holds a positive whole number."""
    for key in keys:
        value = source.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def nested(source: JsonObject, key: str) -> JsonObject:
    """The object under ``key``, an empty one where there is none."""
    value = source.get(key)
    return value if isinstance(value, dict) else {}


def texts(source: JsonObject, key: str) -> tuple[str, ...]:
    """The texts of the list under ``key``; what is no text in it is left out."""
    value = source.get(key)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _broken(name: str, what: str) -> Rejected:
    return Rejected(f"{name} is not valid JSON: {what}", f"replace {name} by the model's own")
