"""Forms with files: what clients send is read, and what nobody could have meant well is refused before it costs anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import RequestError
from modelium.gateway.http import forms
from modelium.gateway.http.forms import Form, parse_form

B = b"x1"


def part(name: str, value: bytes, *, head: str = "") -> bytes:
    return f'--x1\r\nContent-Disposition: form-data; name="{name}"{head}\r\n\r\n'.encode() + value + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--x1--\r\n"


def test_fields_and_the_file_are_told_apart() -> None:
    data = form(part("model", b"m"), part("file", b"\r\n--x\r\n\x00", head='; filename="a\\"; name=b.wav"'), part("a[]", b"1"))
    assert parse_form(B, data) == Form(fields=(("model", "m"), ("a[]", "1")), file=b"\r\n--x\r\n\x00")


def test_what_stands_around_the_parts_means_nothing() -> None:
    data = b"preamble\r\n" + form(part("model", "größe".encode())) + b"epilogue --x1"
    assert parse_form(B, data) == Form(fields=(("model", "größe"),))
    assert parse_form(B, b"--x1--") == Form(fields=())
    assert parse_form(B, form(part("file", b""))) == Form(fields=(), file=b"")


@pytest.mark.parametrize(
    "head",
    [
        'Content-Disposition: form-data; name="model"\r\nContent-Type: text/plain; charset=utf-8',
        "content-disposition:form-data;name=model",
        "Content-Disposition: form-data; filename*=utf-8''b%22; name=model",
        'Content-Type: text/plain\r\nContent-Disposition: form-data; filename="; name=\\"x\\""; name="model"',
    ],
)
def test_heads_are_read_as_clients_write_them(head: str) -> None:
    assert parse_form(B, f"--x1\r\n{head}\r\n\r\nm\r\n--x1--".encode()) == Form(fields=(("model", "m"),))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "does not have the boundary"),
        (b"--y\r\n", "does not have the boundary"),
        (b"--x1", "something stands behind a boundary"),
        (b"--x1 z\r\n", "something stands behind a boundary"),
        (b"--x1\r\n\r\nvalue\r\n--x1--", "a part without a name"),
        (b"--x1\r\nContent-Disposition: attachment; name=a\r\n\r\nv\r\n--x1--", "a part without a name"),
        (b"--x1\r\nA: b", "no end of its head"),
        (part("model", b"m"), "something stands behind a boundary|in the middle of a part"),
        (form(part("n" * 129, b"")), "name is 129 characters long"),
        (form(part("a", b"v" * (forms.MOST_VALUE_BYTES + 1))), "a: is larger than 65536 bytes"),
        (form(part("a", b"v", head=f'; x="{"y" * forms.MOST_HEAD_BYTES}"')), "no end of its head within 4096 bytes"),
        (form(*[part("a", b"")] * (forms.MOST_PARTS + 1)), "more than 64 parts"),
        (form(part("a", b"\xff")), "a: is not text in UTF-8"),
        (form(part("file", b"1"), part("file", b"2")), "has two parts 'file'"),
        (form(part("a", b"eA==", head="\r\nContent-Transfer-Encoding: base64")), "Content-Transfer-Encoding"),
    ],
)
def test_what_is_broken_or_too_much_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_form(B, data)


def test_as_many_parts_as_are_allowed_are_read() -> None:
    assert len(parse_form(B, form(*[part("a", b"v" * forms.MOST_VALUE_BYTES)] * forms.MOST_PARTS)).fields) == forms.MOST_PARTS


@given(st.binary(max_size=300).map(lambda data: data.replace(b"?", b"--x1").replace(b"!", b"\r\n\r\n")))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for each in (data, b"--x1" + data, form(part("a", data)), form(part("file", data))):
        try:
            parse_form(B, each)
        except RequestError as error:
            assert str(error)


@given(st.lists(st.tuples(st.sampled_from(["a", "b[]", "file"]), st.binary(max_size=50)), max_size=5))
def test_what_a_library_writes_is_read(sent: list[tuple[str, bytes]]) -> None:
    sent = [(name, value) for name, value in sent if b"--x1" not in value]
    files = [value for name, value in sent if name == "file"]
    texts = [(name, value.decode("utf-8", "replace")) for name, value in sent if name != "file"]
    data = form(*(part(name, value.encode()) for name, value in texts), *(part("file", value) for value in files[:1]))
    assert parse_form(B, data) == Form(fields=tuple(texts), file=files[0] if files else None)
