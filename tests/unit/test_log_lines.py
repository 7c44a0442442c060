"""What strangers can make Modelium write into its log: a line of a kind a few times a minute, and how many more there were."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from aiohttp.http_exceptions import BadHttpMessage

from modelium.cli.log_lines import MOST_ALIKE, MOST_KINDS, MOST_LINES, PERIOD_S, CountEqualLines


class Written(logging.Handler):
    """Keeps what would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.later: list[Callable[[], None]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, Written, list[float]]]:
    now = [0.0]
    written = Written()
    written.addFilter(CountEqualLines(written.handle, lambda _, tell: written.later.append(tell), lambda: now[0]))
    logger = logging.getLogger("aiohttp.server")
    logger.addHandler(written)
    logger.propagate = False
    yield logger, written, now
    logger.removeHandler(written)
    logger.propagate = True


def test_equal_lines_are_counted(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, now = log
    for _ in range(1000):
        logger.warning("client %s is no good", "a")
    logger.warning("something else")
    assert written.lines == [*["client a is no good"] * MOST_LINES, "something else"]
    now[0] = PERIOD_S
    logger.warning("client %s is no good", "a")
    assert written.lines[-1] == f"client a is no good ({1000 - MOST_LINES} more like this in the minutes before)"


def test_each_decision_has_its_line(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, _ = log
    for model in range(12):
        for _ in range(2):
            logger.warning("%s: unload (%s)", f"m{model}", "evict.5")
    assert written.lines == [f"m{model}: unload (evict.5)" for model in range(12) for _ in range(2)]


def test_lines_that_differ_in_what_a_stranger_says_are_bounded(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, now = log
    for client in range(1000):
        logger.warning("client %s is no good", f"{client:05}" * 2000)
    assert len(written.lines) == MOST_ALIKE
    now[0] = PERIOD_S
    logger.warning("client %s is no good", "a")
    assert written.lines[-1] == f"client a is no good ({1000 - MOST_ALIKE} more like this in the minutes before)"


def test_the_last_lines_that_were_left_out_are_told(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, now = log
    for _ in range(10):
        logger.warning("client %s is no good", "a")
    now[0] = PERIOD_S / 2
    for _ in range(10):
        logger.warning("something %s", "else")
    (tell,) = written.later
    now[0] = PERIOD_S
    tell()
    assert written.lines[2 * MOST_LINES :] == [f"client a is no good ({10 - MOST_LINES} more like this in the minute before)"]
    counting = written.filters[0]
    assert isinstance(counting, CountEqualLines) and len(written.later) == 2
    counting.tell(last=True)
    counting.tell(last=True)
    assert written.lines[2 * MOST_LINES + 1 :] == [f"something else ({10 - MOST_LINES} more like this in the minute before)"]


def test_a_clients_fault_writes_no_traceback(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, _ = log
    for fault in (BadHttpMessage("Bad status line\n" + "x" * 10**5), ConnectionResetError("gone")):
        try:
            raise fault
        except Exception as error:
            logger.exception("Error handling request from %s", "127.0.0.1", exc_info=error)
    assert len(written.lines) == 2
    assert all("\n" not in line and len(line) < 300 for line in written.lines)
    assert all("no HTTP" in line for line in written.lines)


def test_a_defect_of_ours_keeps_its_traceback(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, _ = log
    try:
        raise KeyError("ours")
    except KeyError as error:
        logger.exception("Error handling request", exc_info=error)
    assert "Traceback" in written.lines[0]


def test_the_table_of_lines_has_a_bound(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, _ = log
    counting = written.filters[0]
    assert isinstance(counting, CountEqualLines)
    for kind in range(2 * MOST_KINDS):
        logger.warning(f"kind {kind}")
    assert counting.kinds == MOST_KINDS


def test_no_line_is_endless(log: tuple[logging.Logger, Written, list[float]]) -> None:
    logger, written, _ = log
    logger.warning("said %s", "x" * 10**6)
    assert len(written.lines[0]) < 5000
