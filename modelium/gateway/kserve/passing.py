"""The way to Triton's HTTP port and back: a client's request enters as bytes, Triton's answer leaves as bytes.

Nothing is parsed. Headers that belong to one connection, and those by which a client showed its right to ask, stay here.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from modelium.errors import ModelGone, NotExecuted
from modelium.gateway.deadline import Deadline

if TYPE_CHECKING:
    from modelium.triton.client import TritonClient

LARGE_BYTES = 2**16  # a larger answer is passed on as it comes
_OF_A_CONNECTION = frozenset(
    {
        "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_KEPT_BACK = _OF_A_CONNECTION | {"authorization", "cookie", "origin", "referer", "x-api-key"}
_OF_AN_ANSWER = _OF_A_CONNECTION | {"date", "server"}
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # what aiohttp would say where the client said nothing
_MOST_IN_ONE_PIECE = 2**20  # of a request's body
_NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=None)


class Passage:
    """Connections to Triton's HTTP port, for the whole gateway. Made before Triton is asked anything, opened with the first
    request."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client
        self._session: aiohttp.ClientSession | None = None
        self._kept_back: frozenset[str] = _KEPT_BACK
        self._root = ""

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def ask(self, request: web.Request, path: str, body: bytes) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Triton's answer to ``request`` at ``path`` (as it is to be sent). Leaving the context early breaks the request off.

        Raises ``NotExecuted`` where nobody listens, and ``ModelGone`` for an answer that broke off.
        """
        session = self._session or self._open()
        begun = False
        try:
            async with session.request(
                request.method,
                URL(self._root + path, encoded=True),
                data=body if len(body) <= _MOST_IN_ONE_PIECE else io.BytesIO(body),
                headers=_passed_on(request.headers, self._kept_back, self._client.http_headers),
                allow_redirects=False,
            ) as answer:
                begun = True
                yield answer
        except aiohttp.ClientConnectorError as error:
            words = f"Triton cannot be reached over HTTP at {self._client.http_url} (triton.http_url): {error.strerror}"
            raise NotExecuted(words) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            what = "broke off its answer" if begun else "closed the connection"
            words = "the request may have been executed, which is why it was not sent again"
            raise ModelGone(f"Triton {what} ({type(error).__name__}); {words}") from None

    def _open(self) -> aiohttp.ClientSession:
        self._root = f"http://{self._client.http_url}"
        self._kept_back = _KEPT_BACK | {name.lower() for name in self._client.http_headers}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_NOT_ADDED,
            timeout=_NO_LIMIT,
        )
        return self._session


def _passed_on(sent: CIMultiDictProxy[str], kept_back: frozenset[str], added: dict[str, str]) -> CIMultiDict[str]:
    """A client's headers as Triton gets them."""
    headers = CIMultiDict([(name, value) for name, value in sent.items() if name.lower() not in kept_back])
    headers.update(added)
    return headers


def headers_of(answer: aiohttp.ClientResponse, more: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of Triton's answer as the client gets them, and ``more``."""
    headers = CIMultiDict([(name, value) for name, value in answer.headers.items() if name.lower() not in _OF_AN_ANSWER])
    headers.update(more)
    return headers


async def whole(answer: aiohttp.ClientResponse) -> web.Response:
    """Triton's answer in one piece."""
    body = await answer.read()
    return web.Response(body=body, status=answer.status, reason=answer.reason, headers=headers_of(answer, {}))


@asynccontextmanager
async def within(deadline: Deadline) -> AsyncGenerator[None]:
    """Raises ``DeadlineExceeded`` for what takes longer."""
    try:
        async with asyncio.timeout(deadline.remaining_s()):
            yield
    except TimeoutError:
        raise deadline.exceeded() from None
