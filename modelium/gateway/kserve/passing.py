"""The way to Triton's HTTP port and back: a client's request enters as bytes, Triton's answer leaves as bytes.

Nothing is parsed. Headers that belong to one connection, and those by which a client showed its right to ask, stay here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from modelium.errors import ModelGone, NotExecuted
from modelium.gateway.deadline import Deadline
from modelium.gateway.kserve.upstream import Answer, BrokenOff, Unreachable, Upstream

if TYPE_CHECKING:
    from modelium.triton.client import TritonClient

LARGE_BYTES = 2**16  # a larger answer is passed on as it comes
_OF_A_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_KEPT_BACK = _OF_A_CONNECTION | {"authorization", "cookie", "origin", "referer", "x-api-key", "x-priority"}
_OF_AN_ANSWER = _OF_A_CONNECTION | {"date", "server"}


class Passage:
    """The way to Triton's HTTP port, for the whole gateway."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client
        self._upstream: Upstream | None = None
        self._kept_back: frozenset[bytes] = frozenset()
        self._added = b""

    def close(self) -> None:
        """End the connections."""
        if self._upstream is not None:
            self._upstream.close()

    @asynccontextmanager
    async def ask(self, request: web.Request, path: str, body: bytes) -> AsyncGenerator[Answer]:
        """Triton's answer to ``request`` at ``path`` (as it is to be sent). Leaving the context early breaks the request off.

        Raises ``NotExecuted`` where nobody listens, and ``ModelGone`` for an answer that broke off.
        """
        upstream = self._upstream or self._open()
        begun = False
        try:
            async with upstream.ask(self._head(request.method, request.raw_headers, path, len(body)), body) as answer:
                begun = True
                yield answer
        except Unreachable as error:
            raise NotExecuted(
                f"Triton cannot be reached over HTTP at {self._client.http_url} (triton.http_url): {error}"
            ) from None
        except BrokenOff as error:
            raise broken_off(error, begun=begun) from None

    @property
    def is_idle(self) -> bool:
        """Is there a connection that nobody uses?"""
        return self._upstream is not None and self._upstream.idle > 0

    def ask_now(
        self, headers: Iterable[tuple[bytes, bytes]], path: str, body: Sequence[memoryview], answer: Answer
    ) -> Callable[[], None] | None:
        """POST ``body``, in pieces, where a connection is idle: ``answer`` is told what comes, and calling the result ends it.

        None: there is none, and nothing was sent.
        """
        if self._upstream is None:
            return None
        return self._upstream.ask_now(self._head("POST", headers, path, sum(map(len, body))), body, answer)

    def _head(self, method: str, headers: Iterable[tuple[bytes, bytes]], path: str, size: int) -> bytes:
        """The head of a client's request with a body of ``size`` bytes as Triton gets it."""
        kept_back = self._kept_back
        lines = [f"{method} {path} HTTP/1.1".encode("ascii")]
        lines += [b"%b: %b" % header for header in headers if header[0].lower() not in kept_back]
        if size or method != "GET":
            lines.append(b"Content-Length: %d" % size)
        return b"\r\n".join(lines) + self._added

    def _open(self) -> Upstream:
        url = URL(f"http://{self._client.http_url}")
        added = {"Host": self._client.http_url, **self._client.http_headers}
        self._kept_back = frozenset(name.encode() for name in _KEPT_BACK | {name.lower() for name in added})
        self._added = "".join(f"\r\n{name}: {value}" for name, value in added.items()).encode("latin-1") + b"\r\n\r\n"
        self._upstream = Upstream(url.host or "", url.port or 80)
        return self._upstream


def broken_off(error: BrokenOff, *, begun: bool) -> ModelGone:
    """What is said of an answer that broke off, ``begun``: after its head."""
    what = "broke off its answer" if begun else "closed the connection"
    words = "the request may have been executed, which is why it was not sent again"
    return ModelGone(f"Triton {what} ({error}); {words}")


def passed_headers(answer: Answer) -> list[tuple[str, str]]:
    """The headers of Triton's answer that are not about its connection."""
    return [header for header in answer.headers if header[0].lower() not in _OF_AN_ANSWER]


def headers_of(answer: Answer, more: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of Triton's answer as the client gets them, and ``more``."""
    headers = CIMultiDict(passed_headers(answer))
    headers.update(more)
    return headers


async def whole(answer: Answer) -> web.Response:
    """Triton's answer in one piece."""
    body = await answer.read()
    return web.Response(body=body, status=answer.status, reason=answer.words, headers=headers_of(answer, {}))


@asynccontextmanager
async def within(deadline: Deadline) -> AsyncGenerator[None]:
    """Raises ``DeadlineExceeded`` for what takes longer."""
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            yield
    except TimeoutError:
        raise deadline.exceeded() from None
