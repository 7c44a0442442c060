"""How the verbs print: colour only where stdout is a terminal, JSON untouched, spinners on stderr."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "INCOMPLETE": "yellow",
    "UNSUPPORTED": "bright_black",
    "UNLOADED": "blue",
    "LOADING": "cyan",
    "LOADED": "green",
    "DRAINING": "magenta",
    "UNLOADING": "magenta",
    "FAILED": "red",
}


def emit(content: RenderableType | bytes) -> None:
    """Print to stdout; bytes and plain text (JSON) as they are, never wrapped or coloured."""
    if isinstance(content, bytes):
        content = content.decode()
    if isinstance(content, str):
        sys.stdout.write(content.rstrip("\n") + "\n")
        return
    console = Console()
    if not console.is_terminal:  # a pipe: no wrapping at 80 columns, whole names for grep
        console = Console(width=200)
    console.print(content)


def spinner(message: str) -> AbstractContextManager[object]:
    """A spinner on stderr while something takes its time; nothing when ``message`` is empty or stderr is no terminal."""
    console = Console(stderr=True)
    return console.status(escape(message)) if message and console.is_terminal else nullcontext()


def state(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))


def duration(seconds: float | None) -> str:
    """``4000`` → ``1 h 6 min``.

    >>> duration(75), duration(4000), duration(0.4)
    ('1 min 15 s', '1 h 6 min', '0 s')
    """
    if seconds is None:
        return ""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def facts(rows: dict[str, str]) -> Table:
    """Names and what is known under each; an empty value is left out by the caller."""
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows.items():
        grid.add_row(name, Text(value))
    return grid


def columns(*names: str) -> Table:
    """An empty table without lines; the words that one searches for are never wrapped."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for name in names:
        table.add_column(name, no_wrap=name in ("model", "state", "rule"))
    return table
