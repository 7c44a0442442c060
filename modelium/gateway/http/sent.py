"""A request as its bytes come: pieces enter, whether it is plain and whole leaves, with its head and its body. Pure.

1. Plain is what is whole by itself: HTTP/1.1, one length of at most ``MOST_BYTES``, nothing of the next request behind it.
2. Plain is what a program sends, without words that change how it is answered (``_SAY_MORE``). A browser's is not.

Heads are parsed by httptools (Node's llhttp), as aiohttp's are.
"""

from __future__ import annotations

import httptools

MOST_BYTES = 2**20  # of a body
UNKNOWN = -1
_MOST_OF_HEADERS = 2**14
_END_OF_HEAD = b"\r\n\r\n"
_SAY_MORE = frozenset(
    {
        b"content-encoding", b"expect", b"origin", b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site",
        b"transfer-encoding", b"upgrade", b"x-priority", b"x-request-timeout",
    }
)  # fmt: skip


class Sent:
    """One request as it comes; the methods ``on_…`` are the parser's, which sees the head. Names of headers as they were sent.

    ``is_plain``: as far as it came. ``raw``: all that came of it; ``body``: what of that is the body, not copied. ``size``: of
    the whole body, in bytes; ``came``: how many of these there are.
    """

    __slots__ = (
        "_of_headers", "_parser", "body", "came", "has_head", "headers", "host", "id", "is_plain", "path", "raw", "size",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self.came = self._of_headers = 0
        self.path = self.host = self.id = b""
        self.raw: list[bytes] = []
        self.body: list[memoryview] = []
        self.headers: list[tuple[bytes, bytes]] = []
        self.size = UNKNOWN
        self.has_head = False
        self.is_plain = True

    def feed(self, data: bytes) -> None:
        """More of it came."""
        self.raw.append(data)
        if self.has_head:
            self._add(memoryview(data))
        elif (end := data.find(_END_OF_HEAD) + len(_END_OF_HEAD)) >= len(_END_OF_HEAD):
            try:
                self._parser.feed_data(data[:end])
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._give_up()
            else:
                self._add(memoryview(data)[end:])
        else:  # nearly all come with a whole head at once
            self._give_up()

    @property
    def method(self) -> bytes:
        """Once the head came."""
        return self._parser.get_method()

    @property
    def is_whole(self) -> bool:
        """All of it came."""
        return self.has_head and self.came == self.size

    @property
    def owed(self) -> int:
        """How many bytes of it are still to come; -1: nobody can tell."""
        return self.size - self.came if self.has_head and self.size >= self.came else UNKNOWN

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
            if self.size != UNKNOWN or not value.isdigit() or len(value) > 15:
                raise ValueError("no length")
            self.size = int(value)
        elif lower == b"host":
            self.is_plain = self.is_plain and not self.host
            self.host = value
        elif lower == b"x-request-id":
            self.id = self.id or value

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self.has_head:
            raise ValueError("a second request")
        self.has_head = True
        if self.size == UNKNOWN and not any(name.lower() == b"transfer-encoding" for name, _ in self.headers):
            self.size = 0  # no body
        persistent = self._parser.get_http_version() == "1.1" and self._parser.should_keep_alive()
        self.is_plain = self.is_plain and persistent and 0 <= self.size <= MOST_BYTES

    def on_body(self, _piece: bytes) -> None:
        """The head ended before its last line, for the parser."""
        raise ValueError("no plain head")

    def _add(self, piece: memoryview) -> None:
        """More of the body."""
        self.came += len(piece)
        if len(piece):
            self.body.append(piece)
        if not self.has_head or self.came > self.size:
            self._give_up()

    def _give_up(self) -> None:
        self.is_plain = False
        self.size = UNKNOWN
