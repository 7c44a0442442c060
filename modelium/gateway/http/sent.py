"""A request as its bytes come: pieces enter, whether it is plain and whole leaves, with its head and its body. Pure.

1. Plain is what is whole by itself: HTTP/1.1, one length of at most ``MOST_BYTES``, nothing of the next request behind it.
2. Plain is what a program sends, without words that change how it is answered (``_SAY_MORE``). A browser's is not.

Messages are parsed by httptools (Node's llhttp), as aiohttp's are.
"""

from __future__ import annotations

import httptools

MOST_BYTES = 2**16  # of a body
UNKNOWN = -1
_MOST_OF_HEADERS = 2**14
_SAY_MORE = frozenset(
    {
        b"expect", b"origin", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site", b"transfer-encoding", b"upgrade",
        b"x-priority", b"x-request-timeout",
    }
)  # fmt: skip


class Sent:
    """One request as it comes; the methods ``on_…`` are the parser's. Names of headers as they were sent.

    ``is_plain``: as far as it came. ``raw``: all that came of it.
    """

    __slots__ = (
        "_of_headers",
        "_parser",
        "_size",
        "body",
        "has_head",
        "headers",
        "host",
        "id",
        "is_plain",
        "is_whole",
        "path",
        "raw",
    )

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._of_headers = 0
        self._size = UNKNOWN
        self.raw = self.body = self.path = self.host = self.id = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = self.is_whole = False
        self.is_plain = True

    def feed(self, data: bytes) -> None:
        """More of it came."""
        self.raw = self.raw + data if self.raw else data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_plain = False
            self._size = UNKNOWN

    @property
    def method(self) -> bytes:
        """Once the head came."""
        return self._parser.get_method()

    @property
    def owed(self) -> int:
        """How many bytes of it are still to come; -1: nobody can tell."""
        return self._size - len(self.body) if self.has_head and self._size >= 0 else UNKNOWN

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.is_whole:
            raise ValueError("a second request")

    def on_url(self, url: bytes) -> None:
        """Part of the path."""
        self.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._of_headers += len(name) + len(value)
        if self._of_headers > _MOST_OF_HEADERS:
            raise ValueError("more headers than a plain request has")
        self.headers.append((name, value))
        lower = name.lower()
        if lower in _SAY_MORE:
            self.is_plain = False
        elif lower == b"content-length":
            if self._size != UNKNOWN or not value.isdigit() or len(value) > 15:
                raise ValueError("no length")
            self._size = int(value)
        elif lower == b"host":
            self.is_plain = self.is_plain and not self.host
            self.host = value
        elif lower == b"x-request-id":
            self.id = self.id or value

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self.has_head = True
        parser = self._parser
        if self._size == UNKNOWN and not self._says(b"transfer-encoding"):
            self._size = 0  # no body
        persistent = parser.get_http_version() == "1.1" and parser.should_keep_alive()
        self.is_plain = self.is_plain and persistent and 0 <= self._size <= MOST_BYTES

    def on_body(self, piece: bytes) -> None:
        """Part of the body."""
        self.body = self.body + piece if self.body else piece

    def on_message_complete(self) -> None:
        """All of it came."""
        self.is_whole = True

    def _says(self, wanted: bytes) -> bool:
        return any(name.lower() == wanted for name, _ in self.headers)
