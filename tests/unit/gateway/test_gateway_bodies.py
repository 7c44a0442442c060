"""Bodies of requests that are made to hurt: too deep, too many, too long, packed with a lie, or all at once."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import brotli
import numpy as np
import orjson
import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import InvalidBody, RequestError
from modelium.gateway.codecs import encode
from modelium.gateway.codecs.fields import MOST_ITEMS, MOST_TEXT_CHARACTERS, decoded
from modelium.gateway.codecs.json_pieces import load_in_pieces
from modelium.gateway.codecs.json_text import MAX_DEPTH, MAX_LISTS, MAX_NAME_BYTES, MAX_VALUES, check_size, load_json, measured
from modelium.gateway.deadline import Deadline
from modelium.gateway.generation.huggingface import options_of
from modelium.gateway.http.bodies import BODIES, Bodies, read_body
from modelium.gateway.http.decompression import PIECE_BYTES
from modelium.gateway.http.errors import MAX_BODY_BYTES
from modelium.gateway.http.statuses import status_of
from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.parsing import parse
from modelium.gateway.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from modelium.values import Task
from tests.patience import cpu_s

from .stand_in import Served, profile_of, repeated, served, text_asked, texts

HI = [{"role": "user", "content": "hello"}]
LABELS = repeated({"LABEL": texts(["a"]), "SCORE": np.array([[0.5]])})

_PLAIN = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=30) | st.text('\\"{}[],:', max_size=30)
_JSON = st.recursive(_PLAIN | _TEXT, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_TEXT, inner, max_size=5))


@given(_JSON)
def test_ordinary_json_passes(value: object) -> None:
    assert load_json(orjson.dumps(value)) == orjson.loads(orjson.dumps(value))


@given(st.lists(st.sampled_from(["\\", '"', "a", "{", "[", ":", ",", "é"]), max_size=40).map("".join))
def test_what_stands_in_a_text_is_not_counted(text: str) -> None:
    filler = "x" * 2 * MAX_NAME_BYTES
    check_size(orjson.dumps({"inputs": [text + "[" * 2 * MAX_DEPTH, filler, text, {"name": "{" * 2 * MAX_DEPTH + text}]}))


@pytest.mark.parametrize("escapes", ["\\\\", '\\"', "\\u0041", '\\\\\\"'])
def test_an_escape_between_two_pieces_is_one(escapes: str) -> None:
    for shift in range(7):
        check_size(b'{"inputs": ["' + b"a" * shift + escapes.encode() * 150_000 + b'", "' + b"[" * 100 + b'"]}')


@pytest.mark.parametrize("gap", ["", " " * 300_000])
@pytest.mark.parametrize("shift", range(3))
def test_a_long_name_is_refused_wherever_it_lies(gap: str, shift: int) -> None:
    name = "a" * (MAX_NAME_BYTES + 1 + shift * 2**18)
    with pytest.raises(RequestError, match="name is longer than"):
        check_size(f'{{"x": [1, {{"{name}"{gap}: 1}}]}}'.encode())
    check_size(json.dumps({"x": [name, {"y": name}], "a" * MAX_NAME_BYTES: 1}).encode())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "deep"),
        (b"[" * 10**6, "deep"),
        (b'{"inputs": [' + b"1," * MAX_VALUES + b"1]}", "names and values"),
        (b'{"inputs": [' + b'"a",' * MAX_VALUES + b'"a"]}', "names and values"),
        (b'{"inputs": [' + b"[]," * MAX_LISTS + b"[]]}", "lists and objects"),
        (b'{"' + b"a" * 10**7 + b'": 1}', "name"),
        (b'{"inputs": NaN}', "not JSON"),
        (b'{"inputs": "\\ud800"}', "not JSON"),
        (b"\xff" * 2000, "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_json_that_nobody_needs_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refused:
        load_json(body)
    assert (status_of(refused.value), len(str(refused.value)) < 200) == (400, True)


# -- in pieces -----------------------------------------------------------------------------------------------------

_ODDLY_WRITTEN = st.sampled_from(
    [
        '"\\\\"', '"\\""', '"\\u0041\\n"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\ude00\\ud83d"', '"ä€😀"', '"[,:{"', "1.5e3",
        "-0", "01", "NaN", "tru", "null",
        " ", "", ",", ":", "[", "]", "{", "}", "[]", "{}", '"a":1', '"a":1,"a":2', '"', "'", "\\", '"a" "b"', "1 2",
        "\x00", "\ufeff",
    ]
)  # fmt: skip
_NEARLY_JSON = st.recursive(
    _ODDLY_WRITTEN | _JSON.map(lambda value: orjson.dumps(value).decode()),
    lambda inner: (
        st.lists(inner, max_size=6).map(lambda items: f"[{' ,'.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(['"a"', '"b" ', ' "c\\""', "d"]), inner), max_size=6).map(
            lambda items: "{" + ",".join(f"{name}:{value}" for name, value in items) + "}"
        )
        | st.lists(inner, max_size=3).map("".join)
    ),
    max_leaves=40,
)


def _either(load: Callable[[], object]) -> object:
    """The value with the order of its names, or that it is refused."""
    try:
        return json.dumps(load())
    except orjson.JSONDecodeError:
        return orjson.JSONDecodeError


@given(_NEARLY_JSON, st.integers(0, 60))
def test_pieces_make_what_the_whole_makes(text: str, piece_bytes: int) -> None:
    data = text.encode()
    if not data:
        return
    in_pieces = _either(lambda: load_in_pieces(data, measured(data).seams, piece_bytes=piece_bytes))
    assert in_pieces == _either(lambda: orjson.loads(data))


@given(
    st.lists(st.sampled_from(["\\n", "\\ud83d\\ude00", "\\u00e4", "ä", "€", "😀", "a", "\\\\", '\\"']), max_size=80),
    st.integers(24, 60),
)
def test_a_text_is_cut_between_its_characters(units: list[str], piece_bytes: int) -> None:
    data = f'{{"inputs": ["{"".join(units)}"]}}'.encode()
    assert load_in_pieces(data, measured(data).seams, piece_bytes=piece_bytes) == orjson.loads(data)


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": ["' + b"a" * 10**6 + b'", "b", "' + "ä😀".encode() * 10**5 + b'"], "a": [' + b"1.5," * 10**5 + b"2]}",
        b'{"inputs": [' + b'{"text": "a\\n", "x": [1, 2]},' * 50_000 + b"null]}",
        b" " * 10**6 + b'{"a": ' + b" " * 10**6 + b"1}",
        b"[" + b" " * 10**6 + b"]",
        b'{"a"' + b" \n" * 10**6 + b': 1, "b": 2' + b"\t" * 10**6 + b"}" + b" " * 10**6,
        b'["' + b"a" * 2_000 + b'"' + b" " * 10**6 + b', "b"]',
        orjson.dumps({f"name {number}": number for number in range(50_000)}),
    ],
)
def test_large_bodies_are_what_they_were(body: bytes) -> None:
    assert load_json(body) == orjson.loads(body)


def test_blanks_take_no_longer_than_a_text_of_their_size() -> None:
    """They did a hundred times as long: 66 MB of them, which pack to 64 kB, took 13 s."""

    def seconds(body: bytes) -> float:
        return cpu_s(lambda: load_json(body))

    size = 16 * 10**6
    bodies = (b" " * size + b'{"a": 1}', b'{"a"' + b" " * size + b": 1}", b'{"a": 1' + b" " * size + b"}" + b" " * size)
    text = max(seconds(b'{"a": "' + b"b" * size + b'"}') for _ in range(3))
    assert all(seconds(body) < 20 * text for body in bodies)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"1," * 200_000 + b"]",
        b"[" + b"1," * 200_000 + b",1]",
        b"[" + b"1," * 200_000 + b"1",
        b"[" + b"1," * 200_000 + b"1}",
        b"1" * 300_000 + b"x",
        b'"' + b"a" * 300_000,
        b'["' + b"a" * 300_000 + b'\xff"]',
        b'{"a" 1' + b" " * 300_000 + b"}",
        b"]" * 300_000,
    ],
)
def test_large_bodies_that_are_no_json(body: bytes) -> None:
    with pytest.raises(RequestError, match="is not JSON") as refused:
        load_json(body)
    assert len(str(refused.value)) < 200


LONG = "a" * 3 * 10**5


@pytest.mark.parametrize(
    ("task", "body"),
    [
        (Task.TEXT_CLASSIFICATION, {"inputs": ["a"] * (MOST_ITEMS + 1)}),
        (Task.TEXT_CLASSIFICATION, {"inputs": [{"text": "a"}] * (MOST_ITEMS + 1)}),
        (Task.TEXT_CLASSIFICATION, {"inputs": "a" * (MOST_TEXT_CHARACTERS + 1)}),
        (Task.TEXT_CLASSIFICATION, {"inputs": "a", "parameters": {"function_to_apply": LONG}}),
        (Task.TEXT_CLASSIFICATION, {"inputs": "a", "b" * 1000: 1}),
        (Task.TEXT_CLASSIFICATION, {"inputs": "a", "parameters": {"b" * 1000: 1}}),
        (Task.TEXT_CLASSIFICATION, {"inputs": {"text": "a", "b" * 1000: 1}}),
        (Task.ZERO_SHOT_CLASSIFICATION, {"inputs": ["a"] * 5000, "parameters": {"candidate_labels": ["a"] * 5000}}),
        (
            Task.TEXT_RANKING,
            {"inputs": [{"query": "a", "documents": ["b"]}] * 5000 + [{"query": "a", "documents": ["b"] * 5000}]},
        ),
        (Task.FILL_MASK, {"inputs": ["a"] * 1000, "parameters": {"targets": ["b" * 1000] * 100}}),
        (Task.TRANSLATION, {"inputs": "a", "parameters": {"src_lang": LONG}}),
    ],
)
def test_more_than_a_task_needs_is_refused_in_few_words(task: Task, body: dict[str, object]) -> None:
    with pytest.raises(InvalidBody) as refused:
        encode(profile_of(task), "application/json", json.dumps(body).encode())
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (EmbeddingRequest, {"input": ["a"] * (MOST_ITEMS + 1)}, "input"),
        (EmbeddingRequest, {"input": [1] * (2**18 + 1)}, "input"),
        (EmbeddingRequest, {"input": "a" * (MOST_TEXT_CHARACTERS + 1)}, "input"),
        (EmbeddingRequest, {"input": "a", "model": "m" * 600}, "model"),
        (CompletionRequest, {"prompt": "a", "guided_json": {"a": LONG}}, "guided_json"),
        (CompletionRequest, {"prompt": "a", "guided_regex": LONG}, "guided_regex"),
        (CompletionRequest, {"prompt": "a", "guided_json": {"a": [1] * 270_000}}, "guided_json"),
        (ChatRequest, {"messages": HI, "chat_template_kwargs": {"a": "b" * 2**21}}, "chat_template_kwargs"),
        (ChatRequest, {"messages": HI, "documents": [{"a": "b" * 2**21}]}, "documents"),
        (ChatRequest, {"messages": [{"role": "user", "content": "a" * (MOST_TEXT_CHARACTERS + 1)}]}, "messages"),
        (ChatRequest, {"messages": HI, "tools": [{"type": "function", "function": {"name": "f" * 2**21}}]}, "tools"),
        (
            ChatRequest,
            {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {"schema": {"a": LONG}}}},
            "response_format",
        ),
    ],
)
def test_more_than_a_request_of_openai_needs_is_refused(kind: type[Any], fields: dict[str, object], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(kind, json.dumps({"model": "m", **fields}).encode())
    assert str(refused.value.param).startswith(param)
    assert len(str(refused.value)) < 400


def test_a_grammar_has_a_size() -> None:
    call = text_asked({"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": LONG}}})
    with pytest.raises(InvalidBody, match=r"^parameters\.grammar: is too large"):
        options_of(call.parameters)


def test_a_large_picture_is_decoded_as_a_small_one() -> None:
    picture = bytes(range(256)) * 20_000
    written = base64.b64encode(picture).decode()
    lines = "\n".join(written[at : at + 76] for at in range(0, len(written), 76))
    assert decoded(written, "inputs") == picture
    assert decoded(f"data:image/png;base64,{lines.rstrip('=')}", "inputs") == picture
    assert decoded(base64.urlsafe_b64encode(picture).decode(), "inputs") == picture
    for wrong in (written[: 2**20 - 4] + "QQ==" + written[2**20 :], written[:100] + "§" + written[100:]):
        with pytest.raises(InvalidBody, match="not base64"):
            decoded(wrong, "inputs")


# -- compression ---------------------------------------------------------------------------------------------------

BODY = json.dumps({"inputs": "a"}).encode()


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


async def ask(gateway: Served, encoding: str, body: Any) -> tuple[int, dict[str, Any]]:
    url = gateway.serve(profile_of(Task.TEXT_CLASSIFICATION), LABELS)
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    async with gateway.http.post(url, data=body, headers=headers) as answer:
        return answer.status, await answer.json()


PACKED = [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", deflated), ("br", brotli.compress)]


@pytest.mark.parametrize(("encoding", "pack"), PACKED)
async def test_a_packed_body_is_unpacked(gateway: Served, encoding: str, pack: Any) -> None:
    assert (await ask(gateway, encoding, pack(BODY)))[0] == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
@pytest.mark.parametrize(
    "lie", [BODY, b"\x1f\x8b\x08", gzip.compress(BODY, mtime=0)[:-4] + b"abcd", b"x\x9c", gzip.compress(BODY, mtime=0) + b"x"]
)
async def test_a_lie_about_its_packing_is_the_clients_fault(gateway: Served, encoding: str, lie: bytes) -> None:
    status, answer = await ask(gateway, encoding, lie)
    assert (status, answer["type"]) == (400, "bad_request")
    assert encoding in answer["error"]


async def test_an_unknown_packing_is_415(gateway: Served) -> None:
    status, answer = await ask(gateway, "zstd", BODY)
    assert (status, answer["type"]) == (415, "unsupported_encoding")
    assert "gzip" in answer["error"]


@pytest.mark.parametrize(("encoding", "pack"), PACKED)
async def test_a_bomb_is_noticed_while_it_is_unpacked(gateway: Served, encoding: str, pack: Any) -> None:
    status, answer = await ask(gateway, encoding, pack(b" " * 10**7))
    assert (status, answer["type"]) == (413, "body_too_large")


async def test_others_have_their_turns_while_a_body_is_unpacked() -> None:
    packed, turns = gzip.compress(b" " * 2**24), 0
    app = web.Application()
    app[MAX_BODY_BYTES], app[BODIES] = 2**25, Bodies(2**25, stall_s=300)
    payload = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**20, loop=asyncio.get_running_loop())
    payload.feed_data(packed)
    payload.feed_eof()
    request = make_mocked_request("POST", "/", headers={"Content-Encoding": "gzip"}, app=app, payload=payload)
    reading = asyncio.create_task(read_body(request, Deadline(300)))
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(await reading) == 2**24
    assert turns >= 2**24 / PIECE_BYTES


# -- all together --------------------------------------------------------------------------------------------------


async def test_bodies_of_all_requests_have_a_bound_that_small_ones_do_not_meet() -> None:
    async with served(max_body_bytes=2**20, max_buffered_bytes=2**20) as gateway:
        url = gateway.serve(profile_of(Task.TEXT_CLASSIFICATION), LABELS)
        large = b'{"inputs": "' + b"a" * 900_000 + b'"}'
        gateway.triton.hang = True
        first = asyncio.create_task(gateway.http.post(url, data=large))
        await gateway.triton.started.wait()
        gateway.triton.hang = False
        async with aiohttp.ClientSession() as others:  # each refused body costs its connection
            for path in ("/predict/m", "/v1/embeddings"):
                async with others.post(gateway.url + path, data=large, headers={"Connection": "close"}) as answer:
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
                    assert "max_buffered_bytes" in await answer.text()
            async with others.post(url, json={"inputs": "small"}) as answer:
                assert answer.status == 200
            first.cancel()
            await gateway.triton.cancelled.wait()
            await gateway.controller.released.wait()
            async with others.post(url, data=large) as answer:
                assert answer.status == 200


async def test_a_body_that_trickles_gives_way_to_one_that_comes() -> None:
    async with served(max_body_bytes=2**20, max_buffered_bytes=2**20, request_timeout_seconds=300) as gateway:
        url = gateway.serve(profile_of(Task.TEXT_CLASSIFICATION), LABELS)
        sent, large = asyncio.Event(), b'{"inputs": "' + b"a" * 900_000

        async def trickling() -> AsyncIterator[bytes]:
            yield large
            sent.set()  # the next piece is asked for when this one is on its way
            while True:
                yield b"a"
                await asyncio.sleep(0.02)

        slow = asyncio.create_task(gateway.http.post(url, data=trickling()))
        await sent.wait()
        async with aiohttp.ClientSession() as others:
            while not slow.done():
                async with others.post(url, data=large + b'"}', headers={"Connection": "close"}) as answer:
                    assert answer.status in (200, 503)
            async with others.post(url, data=large + b'"}') as answer:
                assert answer.status == 200
        refused = await slow
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert "max_buffered_bytes" in (await refused.json())["error"]


async def test_a_large_body_is_read_beside_the_loop() -> None:
    async with served() as gateway:
        url = gateway.serve(profile_of(Task.TEXT_CLASSIFICATION), LABELS)
        async with gateway.http.post(url, data=io.BytesIO(orjson.dumps({"inputs": ["a" * 1000] * 2000}))) as answer:
            assert len(await answer.json()) == 2000
        lists = b'{"inputs": [' + b"[]," * MAX_LISTS + b"[]]}"
        async with gateway.http.post(url, data=io.BytesIO(lists)) as answer:
            assert (answer.status, (await answer.json())["type"]) == (400, "bad_request")
