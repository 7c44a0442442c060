"""Requests that are wrong around their body: lengths, chunks, methods, paths, headers, names, and clients that go away."""

from __future__ import annotations

import random

from .making import CRLF, NAMES, READ_ONLY, TRITON, Head, Maker, Malformed, Port, Then, written


def wrong_length(make: Maker) -> Malformed:
    path, body = make.right()
    raw, chance = written(body), make.chance
    size = len(raw)
    length = chance.choice(
        (
            "0", "1", str(size - 1), str(size + 1), str(size + 5000), "-1", "+5", "1e3", "0x10", " 5 5", "5, 5", "5,6",
            "9" * 30, "", "a",
            str(2**31), str(2**63), str(10**10), "١٢".encode().decode("latin-1"), f"{size}\r\nContent-Length: 3",
            "00000" + str(size),
        )
    )  # fmt: skip
    return make.make("POST", path, raw, length=length, then=_then(chance))


def _then(chance: random.Random) -> Then:
    return Then.HALF_CLOSE if chance.random() < 0.2 else Then.READ


def wrong_chunks(make: Maker) -> Malformed:
    path, body = make.right()
    raw, chance = written(body), make.chance
    at = chance.randrange(len(raw))
    parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (raw[:at], raw[at:]) if part]
    odd = chance.choice(
        (
            b"zz\r\nabc\r\n", b"-1\r\nabc\r\n", b"ffffffffffffffffff\r\nabc\r\n", b"3\r\nabcdef\r\n", b"3\nabc\n",
            b"3;x=y\r\nabc\r\n",
            b"3;" + b"x" * 9000 + b"\r\nabc\r\n", b"\r\n", b"0x3\r\nabc\r\n", b"3 \r\nabc\r\n", b"7fffffff\r\nabc",
            b"1\r\na\r\n" * 500, b"",
        )
    )  # fmt: skip
    parts.insert(chance.randrange(len(parts) + 1), odd)
    end = chance.choice(
        (
            b"0\r\n\r\n",
            b"0\r\nX: y\r\n\r\n",
            b"0\r\n",
            b"",
            b"0\r\nContent-Length: 3\r\n\r\n",
            b"00\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        )
    )
    head: Head = [
        (
            "Transfer-Encoding",
            chance.choice(("chunked", "Chunked", "gzip, chunked", "chunked, chunked", "chunked\x0b", "xchunked")),
        )
    ]
    if chance.random() < 0.2:
        head.append(("Content-Length", "5"))
    made = make.make("POST", path, b"", head=head, length="", then=_then(chance))
    body_parts = (b"".join(parts) + end,) if chance.random() < 0.5 else (*parts, end)
    return Malformed(
        kind=made.kind, port=made.port, pieces=(*made.pieces, *(part for part in body_parts if part)), then=made.then
    )


def cut_off(make: Maker) -> Malformed:
    """The client goes away: in its headers, in its body, or when it has sent all of it."""
    path, body = make.right()
    whole = b"".join(make.post(path, written(body)).pieces)
    at = make.chance.choice((make.chance.randrange(1, len(whole)), len(whole)))
    then = make.chance.choice((Then.HANG_UP, Then.HALF_CLOSE))
    return Malformed(kind=make.kind, port=Port.GATEWAY, pieces=(whole[:at],), then=then)


def wrong_methods(make: Maker) -> Malformed:
    chance = make.chance
    method = chance.choice(
        (
            "GET",
            "HEAD",
            "PUT",
            "PATCH",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "CONNECT",
            "PRI",
            "post",
            "POSTX",
            "",
            "A" * 500,
            "G\x00T",
            "GÉT",
            "M-SEARCH",
        )
    )
    port = chance.choice((Port.GATEWAY, Port.GATEWAY, Port.METRICS, Port.TRITON))
    path = _any_path(make, port)
    return make.make(method, path, b"{}" if chance.random() < 0.3 else b"", port=port)


def _any_path(make: Maker, port: Port) -> str:
    match port:
        case Port.METRICS:
            return make.chance.choice(("/metrics", "/", "/metrics/", "/metrics?name[]=x", "/x"))
        case Port.TRITON:
            return make.chance.choice(TRITON).format(model=make.model())
        case _:
            return make.chance.choice(
                (*READ_ONLY, make.right()[0], f"/models/{make.model()}", f"/models/{make.model()}/load", "/x", "*")
            )


def wrong_paths(make: Maker) -> Malformed:
    chance, name = make.chance, make.chance.choice(NAMES)
    path = chance.choice(
        (
            f"/predict/{name}", f"/models/{name}", f"/models/{name}/load", f"/models/{name}/pin", f"/models/{name}/unload",
            f"/v1/models/{name}",
            f"/apps/{name}", f"/apps/{name}/{name}", f"/{name}", f"/v1/{name}", f"/models?{name}",
            f"/predict/{make.model()}?{name}={name}",
            f"//{name}", f"http://{name}/models", f"/predict/{make.model()}/{name}", f"/models/{make.model()}:{name}",
            f"#{name}", f"/#{name}", "",
        )
    )  # fmt: skip
    method = "POST" if path.startswith(("/predict", "/apps")) or path.endswith(("load", "pin")) else "GET"
    if chance.random() < 0.2:
        method = chance.choice(("GET", "POST", "HEAD"))
    return make.make(method, path, written({"inputs": "a"}) if method == "POST" else b"")


def wrong_headers(make: Maker) -> Malformed:
    chance, port = make.chance, make.chance.choice((Port.GATEWAY, Port.GATEWAY, Port.GATEWAY, Port.METRICS))
    path, body = make.right() if port is Port.GATEWAY and chance.random() < 0.6 else (_any_path(make, port), {})
    odd: str | bytes = chance.choice(
        (
            "", " ", "a" * 7000, "a" * 40_000, b"\xff\xfe", b"\x00", b"a\x0bb", "0", "-1", "1e999", "nan", "inf", "9" * 400,
            ";;;", "q=,;q", "*/*;q=x",
            "text/html;q=1e9,*/*;q=-1", "text/plain; charset=x", "application/openmetrics-text; version=1.0.0; escaping=x",
            "a, b", "bytes=0-1", b"\xc3\xa4",
            "evil.example", "127.0.0.1:99999", "[::1", "localhost:x", "null", "Bearer", "Bearer " + "x" * 3000, "cross-site",
            "same-origin", "100-continue",
            "websocket", "h2c", "keep-alive, Upgrade", "multipart/form-data", "text/plain",
            "application/json; a=" + '"' * 99, "image/png", "audio/wav",
        )
    )  # fmt: skip
    name = chance.choice(
        (
            "Host", "Accept", "Accept-Encoding", "Origin", "Sec-Fetch-Site", "Content-Type", "Expect", "Upgrade",
            "Connection", "X-Request-Id",
            "X-Request-Timeout", "Authorization", "X-API-Key", "Cookie", "Range", "If-None-Match",
            "Access-Control-Request-Method", "Transfer-Encoding",
            "Content-Type", "Forwarded", "X-Forwarded-For", "X-HTTP-Method-Override", "A" * 300, "X Y", "", "X:Y",
            "traceparent", "Trailer", "TE",
        )
    )  # fmt: skip
    count = chance.choice((1, 1, 1, 2, 150))
    made = make.make(
        "POST" if body else chance.choice(("GET", "GET", "POST", "OPTIONS")), path, written(body) if body else b"", port=port
    )
    raw = b"".join(made.pieces)
    line, _, rest = raw.partition(CRLF)
    if chance.random() < 0.3 and name.encode() in rest:  # instead of the right one
        rest = CRLF.join(field for field in rest.split(CRLF) if not field.startswith(name.encode()) or not name)
    field_ = name.encode("latin-1") + b": " + (odd if isinstance(odd, bytes) else odd.encode("latin-1")) + CRLF
    if chance.random() < 0.1:
        field_ = chance.choice((b"no colon\r\n", b" folded: x\r\n", b": x\r\n", b"X\r\n : y\r\n", b"X: y\n", b"X: y\r"))
    if chance.random() < 0.1:
        line = line.rpartition(b" ")[0] + chance.choice(
            (b" HTTP/1.0", b" HTTP/2.0", b" HTTP/9", b"", b" HTTP/1.1 x", b" http/1.1")
        )
    return Malformed(kind=make.kind, port=port, pieces=(line + CRLF + field_ * count + rest,))


def unknown_models(make: Maker) -> Malformed:
    chance = make.chance
    name = make.chance.choice(
        (make.model() + "x", make.model()[:-1], "nobody", "org/name", "a:b", f"{make.model()}:adapter", *NAMES[:30])
    )
    path, body = make.right()
    if "model" in body:
        body["model"] = name
    else:
        path = f"/predict/{name}"
    if chance.random() < 0.3:
        return make.make("POST", f"/models/{name}/{chance.choice(('load', 'unload', 'pin', 'unpin', 'x'))}")
    return make.post(path, written(body))


def left_streams(make: Maker) -> Malformed:
    """Right requests for a stream, whose reader goes away."""
    chance = make.chance
    tokens = chance.choice((1, 5, 100))
    path, body = chance.choice(
        (
            (f"/predict/{make.models.text}", {"inputs": "a", "stream": True, "parameters": {"max_new_tokens": tokens}}),
            ("/v1/completions", {"model": make.models.text, "prompt": "a", "stream": True, "max_tokens": tokens}),
            (
                "/v1/chat/completions",
                {
                    "model": make.models.text,
                    "messages": [{"role": "user", "content": "a"}],
                    "stream": True,
                    "max_tokens": tokens,
                },
            ),
        )
    )
    return make.post(path, written(body), then=chance.choice((Then.READ_A_LITTLE, Then.HANG_UP, Then.READ)))
