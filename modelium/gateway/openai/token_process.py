"""The program that reads models' tokenizers: requests enter on stdin; counts of tokens, texts, or neither leave on stdout.

A tokenizer.json comes with a model from somewhere, and the library reads it in one piece, while no other thread of Python's
runs: a second for a usual one, far longer for one made to hurt. So it is read in a process (``tokenizing`` starts it), which
may take so much memory, and which the kernel ends when it takes too long, whether its parent lives or not.

A message is its length (4 bytes) and JSON. Each request has two answers: one when the tokenizer is there, and what was asked.
This file is run by its path and imports nothing of Modelium, to start fast.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

from tokenizers import Tokenizer

MEMORY_BYTES = 2 * 2**30
MAX_FILE_BYTES = 64 * 2**20  # the largest vocabularies take 35 MB
MAX_TEXT_CHARACTERS = 4 * 2**20  # as many as a text of a request has
MAX_TOKENS = 2**20  # of a text whose tokens are asked for
READY = b"ready"
_KEPT_BYTES = 48 * 2**20  # of files; in memory they are several times as much
_MOST_KEPT = 16

Answer = dict[str, object]


class Tokenizers:
    """Reads them; keeps the latest. A new fingerprint makes a new revision a new tokenizer."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[Tokenizer, int]] = OrderedDict()

    def of(self, file: str, fingerprint: str) -> Tokenizer | None:
        """None where there is none that can be read."""
        key = (file, fingerprint)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        try:
            facts = os.stat(file)  # noqa: PTH116 – no Path needed for one number
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE_BYTES:
                return None
            while self._kept and (
                len(self._kept) >= _MOST_KEPT or facts.st_size + sum(size for _, size in self._kept.values()) > _KEPT_BYTES
            ):
                self._kept.popitem(last=False)
            tokenizer = Tokenizer.from_file(file)
        except Exception:  # the library raises plain Exception for whatever it cannot read
            return None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._kept[key] = (tokenizer, facts.st_size)
        return tokenizer


def answer(tokenizer: Tokenizer, request: dict[str, Any]) -> Answer:
    """How many tokens there are in ``texts`` (or pairs), each as far as ``limit``; the tokens of ``text``; the text of
    ``spelt`` tokens as they stand; or the text of ``tokens``, without the frame of special tokens that the model's runtime
    writes around every text. No text where there is none that has these tokens.
    """
    try:
        if "tokens" in request:
            tokens = _unframed(tokenizer, request["tokens"])
            text = tokenizer.decode(tokens, skip_special_tokens=False)
            if len(text) > MAX_TEXT_CHARACTERS or tokenizer.encode(text, add_special_tokens=False).ids != tokens:
                return {}
            return {"text": text}
        if "spelt" in request:
            text = tokenizer.decode(request["spelt"], skip_special_tokens=False)
            return {"text": text} if len(text) <= MAX_TEXT_CHARACTERS else {}
        if "text" in request:
            encoding = tokenizer.encode(request["text"], add_special_tokens=request["special"])
            return {"ids": encoding.ids, "words": encoding.tokens} if len(encoding.ids) <= MAX_TOKENS else {}
        limit = request["limit"]
        texts = [tuple(text) if isinstance(text, list) else text for text in request["texts"]]
        lengths = (len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts))
        return {"count": sum(length if limit is None else min(length, limit) for length in lengths)}
    except Exception:
        return {}


def _unframed(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    """``tokens`` without what stands before and behind each text, where both stand there: [CLS] … [SEP]."""
    bare, framed = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
    spare = len(framed) - len(bare)
    head = next((size for size in range(spare + 1) if framed[size : size + len(bare)] == bare), 0)
    begin, end = framed[:head], framed[head + len(bare) :]
    if not bare or len(tokens) < spare or tokens[:head] != begin or tokens[len(tokens) - len(end) :] != end:
        return tokens
    return tokens[head : len(tokens) - len(end)]


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Until ``source`` ends, which it does with the parent."""
    tokenizers = Tokenizers()
    _send(sink, READY)
    while len(head := source.read(4)) == 4:
        request = json.loads(source.read(int.from_bytes(head)))
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        tokenizer = tokenizers.of(request["file"], request["fingerprint"])
        _send(sink, json.dumps({} if tokenizer is None else {"vocabulary": tokenizer.get_vocab_size()}).encode())
        said = {} if tokenizer is None else answer(tokenizer, request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(sink, json.dumps(said, ensure_ascii=False).encode())


def _send(sink: BinaryIO, message: bytes) -> None:
    sink.write(len(message).to_bytes(4) + message)
    sink.flush()


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even in the midst of a computation in Rust
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's


if __name__ == "__main__":
    _limit()
    serve(sys.stdin.buffer, sys.stdout.buffer)
