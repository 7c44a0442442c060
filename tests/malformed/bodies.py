"""Requests whose body is wrong."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from collections.abc import Callable

import brotli

from .making import ODD, Json, Maker, Malformed, odd, places_in, written


def wrong_json(make: Maker) -> Malformed:
    path, body = make.right()
    raw, chance = bytearray(written(body)), make.chance
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(5):
            case 0:
                raw[at:at] = bytes([chance.choice(b'"{}[],:\\\x00\xff\xc3\xedx1-')])
            case 1:
                del raw[at : at + chance.randint(1, 9)]
            case 2:
                del raw[at:]
            case 3:
                raw[at:at] = raw[: chance.randint(1, 60)]
            case _:
                raw[:0] = chance.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" " * 99, b"//", b"'", b"\x00"))
    return make.post(path, bytes(raw))


def wrong_types(make: Maker) -> Malformed:
    path, body = make.right()
    for _ in range(make.chance.randint(1, 2)):
        _change(body, make.chance)
    return make.post(path, written(body))


def _change(body: Json, chance: random.Random) -> None:
    """One place of ``body``: another value, nothing, a field more, or many times the same."""
    places = list(places_in(body))
    if not places:
        return
    holder, key = chance.choice(places)
    match chance.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(chance.choice(ODD))] = odd(chance)
        case 2:
            holder[key] = [holder[key]] * chance.choice((0, 1, 2, 100, 5000))
        case 3:
            holder[key] = {str(key): holder[key]}
        case _:
            holder[key] = odd(chance)


def wrong_encoding(make: Maker) -> Malformed:
    path, body = make.right()
    raw, chance = written(body), make.chance
    name = chance.choice(
        ("br", "gzip", "deflate", "x-gzip", "GZip", " br ", "zstd", "compress", "gzip, br", "identity", "x" * 3000, "")
    )
    pack: Callable[[bytes], bytes] = chance.choice(
        (brotli.compress, lambda data: gzip.compress(data, mtime=0), zlib.compress, bytes)
    )
    packed = bytearray(pack(raw))
    match chance.randrange(5):
        case 0:
            packed[chance.randrange(len(packed))] ^= 1 << chance.randrange(8)
        case 1:
            del packed[chance.randrange(len(packed)) :]
        case 2:
            packed += chance.choice((b"x", bytes(packed), b"\x00" * 1000))
        case 3:
            packed[:] = pack(b"\x00" * 300_000)
        case _:
            pass
    return make.post(path, bytes(packed), head=[("Content-Encoding", name)])


def wrong_names(make: Maker) -> Malformed:
    """Huge or strange names of fields, of models, of parameters, of functions."""
    path, body = make.right()
    chance = make.chance
    name = chance.choice(("a", "ä", "\x00", "\\", '"', "\u202e", "😀")) * chance.choice((1, 200, 1100, 70_000))
    match chance.randrange(4):
        case 0:
            body[name] = 1
        case 1:
            body["model"] = name
        case 2 if isinstance(body.get("parameters"), dict):
            body["parameters"][name] = 1
        case _:
            holder, key = chance.choice([(holder, key) for holder, key in places_in(body) if isinstance(holder, dict)])
            holder[name] = holder.pop(key)
    return make.post(path, written(body))


def wrong_surrogates(make: Maker) -> Malformed:
    path, body = make.right()
    holder, key = make.chance.choice(list(places_in(body)))
    half = make.chance.choice(("\ud800", "\udfff", "a\udc80", "\ud83d\ud83d", "\udcff" * 50))
    if isinstance(holder, dict) and make.chance.random() < 0.3:
        holder[half] = holder.pop(key)
    else:
        holder[key] = half
    raw = written(body)
    if make.chance.random() < 0.4:  # as bytes that are no UTF-8, not as an escape
        raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return make.post(path, raw)


def wrong_multipart(make: Maker) -> Malformed:
    path, body = make.right()
    chance = make.chance
    part = b'--b\r\nContent-Disposition: form-data; name="inputs"\r\n\r\n' + written(body) + b"\r\n--b--\r\n"
    raw = chance.choice((part, part[:-6], b"--b", b"", part * 50, b"--c\r\n\r\n", written(body), b"inputs=a&parameters=%ff"))
    kind = chance.choice(
        ("multipart/form-data; boundary=b", "multipart/form-data", "multipart/mixed; boundary=" + "b" * 999, "multipart/",
        "multipart/x; boundary=",
         "application/x-www-form-urlencoded", "text/plain", "image/png", "audio/wav", "application/octet-stream", "x", "/",
         "application/json/x")
    )  # fmt: skip
    return make.post(path, raw, head=[("Content-Type", kind)])


def wrong_numbers(make: Maker) -> Malformed:
    """NaN, infinity, and numbers that no machine holds, as JSON's text."""
    path, body = make.right()
    holder, key = make.chance.choice(list(places_in(body)))
    holder[key] = "@@"
    number = make.chance.choice(
        (
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"1e999",
            b"-1e-999",
            b"0" * 500 + b"1",
            b"9" * 5000,
            b"1e",
            b".5",
            b"+1",
            b"0x10",
            b"1_0",
            b"--1",
            b"1" + b"0" * 400,
        )
    )
    raw = written(body).replace(b'"@@"', make.chance.choice((number, b"[" + number + b"]", b"[[" + number + b"]]")))
    return make.post(path, raw)


def wrong_deep(make: Maker) -> Malformed:
    path, body = make.right()
    holder, key = make.chance.choice(list(places_in(body)))
    holder[key] = "@@"
    depth = make.chance.choice((10, 63, 64, 65, 500, 100_000))
    opening, closing = make.chance.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'[{"type":', b"}]")))
    inner = opening * depth + b"1" + closing * make.chance.choice((depth, depth - 1, 0))
    return make.post(path, written(body).replace(b'"@@"', inner))
