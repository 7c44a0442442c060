"""Bodies that came compressed: an encoding enters, what undoes it leaves, piece by piece and never much at once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli

from modelium.errors import RequestError, UnsupportedEncoding

PIECE_BYTES = 2**18  # of what comes out at once, so that a bomb of a kilobyte is noticed after this much


class Decompression(Protocol):
    """Undoes one encoding."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What comes out of the next ``data``. Raises ``RequestError`` where it is not what its header says."""

    def end(self) -> None:
        """Raises ``RequestError`` where the body ended too early."""


def decompression_of(encoding: str) -> Decompression | None:
    """For the value of ``Content-Encoding``; None where nothing is to be done. Raises ``UnsupportedEncoding`` (415)."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Zlib("gzip", zlib.MAX_WBITS | 16)
        case "deflate":
            return _Zlib("deflate", zlib.MAX_WBITS)
        case "br":
            return _Brotli()
        case other:
            raise UnsupportedEncoding(f"Content-Encoding: {other[:100]!r} is not one of gzip, deflate, br; send the body plain")


class _Zlib:
    def __init__(self, name: str, window_bits: int) -> None:
        self._name = name
        self._unpacker = zlib.decompressobj(window_bits)
        self._began = False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._began and data:
            self._began = True
            if self._name == "deflate" and data[0] & 0xF != 8:  # many clients send it without zlib's header
                self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        while data:
            if self._unpacker.eof:
                raise _is_a_lie(self._name, "something follows its end")
            try:
                piece = self._unpacker.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise _is_a_lie(self._name, str(error)) from None
            data = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            yield piece

    def end(self) -> None:
        if not self._unpacker.eof:
            raise _is_a_lie(self._name, "it ends too early")


class _Brotli:
    def __init__(self) -> None:
        self._unpacker = brotli.Decompressor()

    def pieces(self, data: bytes) -> Iterator[bytes]:
        try:
            yield self._unpacker.process(data, output_buffer_limit=PIECE_BYTES)
            while not self._unpacker.can_accept_more_data():
                yield self._unpacker.process(b"", output_buffer_limit=PIECE_BYTES)
        except brotli.error as error:
            raise _is_a_lie("br", str(error)) from None

    def end(self) -> None:
        if not self._unpacker.is_finished():
            raise _is_a_lie("br", "it ends too early")


def _is_a_lie(name: str, why: str) -> RequestError:
    return RequestError(f"the body is not what its Content-Encoding says, {name}: {why[:100]}")
