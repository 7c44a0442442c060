"""What a web page can make a browser send: which hosts and sites are answered, and that a refused request does nothing."""

from __future__ import annotations

import asyncio
import re
import string
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelium.config import GatewaySettings
from modelium.gateway.http.hosts import KnownHosts
from modelium.values import Task

from .stand_in import Served, numbers, profile_of, repeated, response, served

SITE = "https://chat.example.org"
ANSWER = repeated({"EMBEDDING": numbers([1, 2, 3])})
LOCAL = KnownHosts.of((), bound="127.0.0.1", machine="box")
LABEL = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=10)
TO_DO = [
    ("POST", "/models/m/load"),
    ("POST", "/models/m/unload"),
    ("POST", "/models/m/pin"),
    ("POST", "/models/m/unpin"),
    ("POST", "/predict/m"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/apps/m"),
    ("GET", "/models"),
    ("GET", "/plan"),
    ("GET", "/v1/models"),
    ("GET", "/nothing"),
    ("OPTIONS", "/predict/m"),
]
OTHER_SITES: list[Mapping[str, str]] = [
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"},
    {"Origin": "http://["},
]


@given(st.lists(LABEL, min_size=1, max_size=4).map(".".join), st.integers(0, 65535))
def test_no_name_is_ours_but_localhost(name: str, port: int) -> None:
    assume(not re.fullmatch(r"[0-9.]+", name))  # an address, perhaps
    assert LOCAL.know(f"{name}:{port}") == (name == "localhost")


@given(
    st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda address: f"[{address}]")), st.integers(0, 65535)
)
def test_every_address_is_ours(address: str, port: int) -> None:
    assert LOCAL.know(address)
    assert LOCAL.know(f"{address}:{port}")


@pytest.mark.parametrize(
    "host", ["", "localhost:", "localhost:80:1", "local host", "localhost/", "a@localhost", "[::1", "::1:80"]
)
def test_what_is_no_host_is_not_ours(host: str) -> None:
    assert not LOCAL.know(host)


def test_which_names_count() -> None:
    open_one = KnownHosts.of(("Models.Example.org", "*.svc"), bound="0.0.0.0", machine="box")
    known = ["models.example.ORG", "models.example.org.:443", "a.b.svc", "box", "localhost"]
    assert [host for host in [*known, "svc", "example.org", "x.models.example.org", "asvc"] if open_one.know(host)] == known
    assert not LOCAL.know("box"), "nobody reaches a loopback address by the machine's name"
    assert KnownHosts.of(("*",), bound="127.0.0.1", machine="box").know("any.example")


@pytest.mark.parametrize("wrong", ["http://x", "x:80", "", "a b", "*x", "."])
def test_a_name_that_is_none_is_said(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no host name"):
        GatewaySettings(allowed_hosts=(wrong,))


@pytest.mark.parametrize("wrong", ["x.example", "https://x.example/path", "null", ""])
def test_an_origin_that_is_none_is_said(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        GatewaySettings(cors_origins=(wrong,))


@pytest.mark.parametrize(("method", "path"), [*TO_DO, ("GET", "/"), ("GET", "/health/live")])
async def test_a_re_bound_name_is_not_answered(gateway: Served, method: str, path: str) -> None:
    headers = {"Host": "evil.example:8080", "Origin": "http://evil.example:8080", "Sec-Fetch-Site": "same-origin"}
    said = await refused(gateway, method, path, headers, status=421)
    assert "gateway.allowed_hosts" in said
    assert "evil.example:8080" in said


async def test_two_hosts_are_none(gateway: Served) -> None:
    reader, writer = await _open(gateway.url)
    writer.write(b"GET /models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert int((await reader.readline()).split()[1]) in (400, 421)
    writer.close()


async def test_a_probe_without_a_host_is_answered(gateway: Served) -> None:
    reader, writer = await _open(gateway.url)
    writer.write(b"GET /health/live HTTP/1.0\r\n\r\n")
    assert b" 200 " in await reader.readline()
    writer.close()


async def test_a_long_host_is_not_repeated(gateway: Served) -> None:
    said = await refused(gateway, "GET", "/models", {"Host": "e" * 5000}, status=421)
    assert len(said) < 400


@pytest.mark.parametrize("headers", OTHER_SITES)
@pytest.mark.parametrize(("method", "path"), TO_DO)
async def test_another_site_is_refused(gateway: Served, method: str, path: str, headers: Mapping[str, str]) -> None:
    assert "gateway.cors_origins" in await refused(gateway, method, path, headers, status=403)


async def refused(gateway: Served, method: str, path: str, headers: Mapping[str, str], *, status: int) -> str:
    """Ask with ``headers``; gives what was said, once it is sure that nothing else happened."""
    gateway.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
    before = (dict(gateway.controller.models), await _counted(gateway))
    async with gateway.http.request(method, gateway.url + path, headers=headers, data=b'{"inputs": "a"}') as response:
        body = await response.json()
    error = body["error"]["message"] if path.startswith("/v1/") else body["error"]
    assert response.status == status
    assert "Access-Control-Allow-Origin" not in response.headers
    assert (dict(gateway.controller.models), await _counted(gateway)) == before
    assert not gateway.controller.calls
    assert not gateway.triton.seen
    return str(error)


async def _counted(gateway: Served) -> list[str]:
    async with gateway.http.get(f"{gateway.metrics_url}/metrics") as answer:
        return [line for line in (await answer.text()).splitlines() if line.startswith("modelium_request")]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},  # the browser's word counts
        {"Origin": "SELF"},
    ],
)
async def test_our_own_page_and_programs_are_answered(gateway: Served, headers: Mapping[str, str]) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
    headers = {name: gateway.url if value == "SELF" else value for name, value in headers.items()}
    async with gateway.http.post(url, json={"inputs": "a"}, headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; b=x"])
async def test_a_browsers_body_says_what_it_is(gateway: Served, kind: str) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
    headers = {"Content-Type": kind, "Sec-Fetch-Site": "same-origin"}
    async with gateway.http.post(url, data=b'{"inputs": "a"}', headers=headers) as response:
        assert (response.status, (await response.json())["type"]) == (415, "unsupported_media_type")
    async with gateway.http.post(f"{gateway.url}/models/m/pin", headers={"Sec-Fetch-Site": "same-origin"}) as response:
        assert response.status == 200, "no body, no type"


async def test_a_program_need_not_say_what_its_body_is(gateway: Served) -> None:
    url = gateway.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
    for skipped, headers in ((["Content-Type"], {}), ([], {"Content-Type": "application/x-www-form-urlencoded"})):
        async with gateway.http.post(
            url, data=b'{"inputs": "a"}', headers=headers, skip_auto_headers=skipped
        ) as response:  # the second is what curl -d sends
            assert response.status == 200


async def test_no_site_is_let_in_by_itself(gateway: Served) -> None:
    async with gateway.http.get(f"{gateway.url}/health/live", headers={"Origin": SITE}) as response:
        assert response.status == 200
        assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_a_site_that_is_let_in(gateway: Served) -> None:
    async with served(cors_origins=(SITE,), request_timeout_seconds=60) as running:
        url = running.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
        headers = {"Origin": SITE, "Sec-Fetch-Site": "cross-site"}
        async with running.http.post(url, json={"inputs": "a"}, headers=headers) as response:
            assert response.status == 200
            _is_readable(response.headers)
        async with running.http.post(url + "x", json={"inputs": "a"}, headers=headers) as response:
            assert response.status == 404
            _is_readable(response.headers)
        async with running.http.post(
            url, json={"inputs": "a"}, headers=headers | {"Origin": SITE + ".evil.example"}
        ) as response:
            assert response.status == 403
            assert "Access-Control-Allow-Origin" not in response.headers
            assert "Origin" in response.headers.getall("Vary")


def _is_readable(headers: Mapping[str, str]) -> None:
    assert headers["Access-Control-Allow-Origin"] == SITE
    assert headers["Vary"] == "Origin"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"


async def test_streams_of_a_site_that_is_let_in() -> None:
    async with served(cors_origins=(SITE,), request_timeout_seconds=60) as running:
        url = running.serve_vllm(profile_of(Task.TEXT_GENERATION), lambda _: [response("a"), response("b", "stop")])
        body = {"inputs": "x", "stream": True}
        async with running.http.post(url, json=body, headers={"Origin": SITE, "Sec-Fetch-Site": "cross-site"}) as answer:
            assert answer.content_type == "text/event-stream"
            _is_readable(answer.headers)
            assert b"data:" in await answer.read()


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ("authorization,content-type,x-stainless-os", "authorization,content-type,x-stainless-os"),
        ("x" * 2000, "authorization, content-type, x-api-key, x-priority, x-request-id, x-request-timeout"),
    ],
)
async def test_a_preflight_needs_no_key_and_names_the_headers(tmp_path: Path, asked: str, granted: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-right-key-0123456789\n", encoding="utf-8")
    async with served(cors_origins=(SITE,), request_timeout_seconds=60, api_keys_file=keys) as running:
        headers = {"Origin": SITE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Private-Network": "true"}
        headers["Access-Control-Request-Headers"] = asked
        async with running.http.options(f"{running.url}/v1/chat/completions", headers=headers) as answer:
            assert answer.status == 204
            _is_readable(answer.headers)
            assert answer.headers["Access-Control-Allow-Headers"] == granted
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            assert answer.headers["Access-Control-Allow-Private-Network"] == "true"


async def test_all_sites_may_be_let_in() -> None:
    async with served(cors_origins=("*",), request_timeout_seconds=60) as running:
        url = running.serve(profile_of(Task.FEATURE_EXTRACTION), ANSWER)
        async with running.http.post(url, json={"inputs": "a"}, headers={"Origin": "app://any"}) as answer:
            assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, "app://any")


async def test_the_page_runs_its_own_script_alone(gateway: Served) -> None:
    async with gateway.http.get(
        gateway.url + "/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    ) as answer:
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
        assert answer.status == 200
        assert "<script>SCRIPT" not in await answer.text()
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert "unsafe" not in "".join(policy.values())
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


async def test_what_is_no_page_is_none_for_a_browser_either(gateway: Served) -> None:
    async with gateway.http.get(f"{gateway.url}/models") as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_the_metrics_port_looks_at_the_same(gateway: Served) -> None:
    url = f"{gateway.metrics_url}/metrics"
    for headers, status in [
        ({}, 200),
        ({"Host": "127.0.0.1:9090"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ]:
        async with gateway.http.get(url, headers=headers) as answer:
            assert answer.status == status


async def test_the_metrics_port_answers_to_the_same_names() -> None:
    async with served(allowed_hosts=("modelium",), request_timeout_seconds=60) as running:
        answer = await running.http.get(f"{running.metrics_url}/metrics", headers={"Host": "modelium:9090"})
        assert answer.status == 200


async def _open(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))
