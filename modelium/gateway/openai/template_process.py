"""The program that renders chat templates: requests enter on stdin, prompts or what went wrong leave on stdout.

A template comes with a model from somewhere. Jinja's sandbox keeps it away from Python, but bounds neither time nor memory, and
Python cannot interrupt a long computation in C. So this runs in a process of its own (``template_renderer`` starts it), which
may take so much memory, and which the kernel ends when a rendering takes too long, whether its parent lives or not.

A message is its length (4 bytes) and JSON. This file is run by its path and imports nothing of Modelium, to start fast.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections import OrderedDict
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_BYTES = 2**30
MAX_TEXT_BYTES = 16 * 2**20
READY = b"ready"
_MAX_WORDS = 500
_KEPT_CHARACTERS = 4 * 2**20  # of the templates that stay compiled

Answer = dict[str, object]


class _Generation(Extension):
    """``{% generation %}…{% endgeneration %}`` marks what an assistant said, for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Macro) -> str:
        return caller()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own escapes HTML, which prompts are not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class _TooMuchText(Exception):
    """More than any model reads."""


class Templates:
    """Renders what transformers' ``apply_chat_template`` renders; keeps the latest templates compiled."""

    def __init__(self) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], cache_size=0
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        del environment.globals["lipsum"]
        self._environment = environment
        self._kept: OrderedDict[str, Template] = OrderedDict()

    def render(self, source: str, variables: dict[str, object]) -> str:
        """The text. Raises what jinja2 raises, and ``_TooMuchText`` beyond ``MAX_TEXT_BYTES``."""
        blocks: list[str] = []
        length = 0
        for block in self._compiled(source).generate(variables):
            blocks.append(block)
            length += len(block.encode())
            if length > MAX_TEXT_BYTES:
                raise _TooMuchText
        return "".join(blocks)

    def _compiled(self, source: str) -> Template:
        template = self._kept.pop(source, None) or self._environment.from_string(source)
        self._kept[source] = template
        while sum(map(len, self._kept)) > _KEPT_CHARACTERS:
            self._kept.popitem(last=False)
        return template


def answer(templates: Templates, request: dict[str, Any]) -> Answer:
    """``text``, or ``error`` and words. ``spent`` asks for a new process: this one may have little memory left."""
    try:
        text = templates.render(request["template"], request["variables"])
    except TemplateSyntaxError as error:
        return {"error": "broken", "words": f"line {error.lineno}: {_words(error.message)}"}
    except SyntaxError as error:  # what Jinja makes of it is no Python: too many loops in one another
        return {"error": "broken", "words": _words(error.msg)}
    except TemplateError as error:
        return {"error": "refuses", "words": _words(error.message)}
    except _TooMuchText:
        return {"error": "stopped", "words": "it makes too much text"}
    except MemoryError:
        return {"error": "stopped", "words": "it takes too much memory", "spent": True}
    except Exception as error:  # whatever a template can raise
        return {"error": "fails", "words": f"{type(error).__name__}: {_words(error)}"}
    return {"text": text}


def _words(said: object) -> str:
    return str(said)[:_MAX_WORDS].encode(errors="replace").decode()


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Until ``source`` ends, which it does with the parent."""
    templates = Templates()
    _send(sink, READY)
    while len(head := source.read(4)) == 4:
        request = json.loads(source.read(int.from_bytes(head)))
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
        said = json.dumps(answer(templates, request), ensure_ascii=False).encode()
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(sink, said)


def _send(sink: BinaryIO, message: bytes) -> None:
    sink.write(len(message).to_bytes(4) + message)
    sink.flush()


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, even in the midst of a computation in C
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's


if __name__ == "__main__":
    _limit()
    serve(sys.stdin.buffer, sys.stdout.buffer)
