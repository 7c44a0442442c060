"""How the verbs print: colour only where stdout is a terminal, JSON untouched, spinners on stderr."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from modelium.values import State, Tone

_COLOURS = {
    Tone.INCOMING: "yellow",
    Tone.REFUSED: "bright_black",
    Tone.RESTING: "blue",
    Tone.COMING: "cyan",
    Tone.GOOD: "green",
    Tone.GOING: "magenta",
    Tone.BROKEN: "red",
}

_LONGEST_NAME = 40  # cells, in a narrow terminal


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
    """A model's state in its colour."""
    known = State.__members__.get(word)  # the gateway may be newer
    return Text(word, style=_COLOURS[known.tone] if known is not None else "")


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


class Name:
    """Names in a table, one a line: at most 40 cells, or two fifths of a wide terminal; longer ones are cut in the middle.

    So one long name leaves room for the state of all the others. Whole names are in ``--json``.
    """

    def __init__(self, *lines: str) -> None:
        self._lines = lines

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = min(max(map(cell_len, self._lines)), max(_LONGEST_NAME, console.width * 2 // 5))
        return Measurement(widest, widest)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._lines:
            yield Text(cut_in_the_middle(line, options.max_width), no_wrap=True)


def cut_in_the_middle(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells.

    >>> cut_in_the_middle("sentence-transformers--all-MiniLM-L6-v2", 21), cut_in_the_middle("bert", 21)
    ('sentence-t…niLM-L6-v2', 'bert')
    """
    if cell_len(text) <= width:
        return text
    begin, end = 0, len(text)
    while begin < end and cell_len(text[: begin + 1]) <= (width - 1) // 2:
        begin += 1
    while end > begin and cell_len(text[end - 1 :]) <= width - 1 - (width - 1) // 2:
        end -= 1
    return f"{text[:begin]}…{text[end:]}"


def columns(*names: str) -> Table:
    """An empty table without lines; the words that one searches for are never wrapped, a state is never cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bright_black")
    for name in names:
        widest = max(map(len, State)) if name == "state" else None
        table.add_column(name, no_wrap=name in ("model", "state", "rule"), min_width=widest)
    return table
