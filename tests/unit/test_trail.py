"""The trail of requests: lines in the order of arrival, files of bounded size, and nothing that stops a request."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from modelium.simulation.traces import Trace, parse_trace
from modelium.trail import HEADER, Trail


def kept(trail: Trail) -> bytes:
    files = trail.open_files()
    content = b"".join(file.read() for file in files)
    for file in files:
        file.close()
    return content


def contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.iterdir()]


def read(trail: Trail) -> Trace:
    return parse_trace(io.BytesIO(HEADER + kept(trail)), "the trail", duration_s=9.0)


async def test_requests_leave_lines_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "state", most_bytes=100_000)
    slow, quick, unanswered = trail.arrive("slow"), trail.arrive("quick"), trail.arrive("never-loaded")
    slow.begin()
    quick.begin()
    quick.end()
    unanswered.end()
    await trail.flush()
    assert kept(trail) == b"", "the first one is not over"
    slow.end()
    await trail.flush()
    trace = read(trail)
    assert trace.names == ("slow", "quick", "never-loaded")
    times = [duration for _, _, duration in trace.arrivals()]
    assert times[0] < 9 and times[1] < 9 and times[2] == 9.0, "who was never answered took nobody knows how long"
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


async def test_the_oldest_goes_when_it_is_too_much(tmp_path: Path) -> None:
    trail = Trail(tmp_path, most_bytes=4_000)
    for number in range(500):
        trail.arrive(f"m{number}").end()
        await trail.flush()
    sizes = [len(content) for content in contents(tmp_path)]
    assert len(sizes) == 4 and sum(sizes) <= 4_000
    names = read(trail).names
    assert names == tuple(f"m{number}" for number in range(500 - len(names), 500)), "the newest, in order"


async def test_more_at_once_than_a_file_holds_leaves_whole_lines(tmp_path: Path) -> None:
    trail = Trail(tmp_path, most_bytes=4_000)
    for number in range(500):
        trail.arrive(f"m{number}").end()
    await trail.flush()
    names = read(trail).names
    assert names == tuple(f"m{number}" for number in range(500 - len(names), 500))


async def test_a_line_that_was_cut_off_by_a_crash_is_not_continued(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_bytes(b"1.0,a,0.1\n2.0,b,0")
    trail = Trail(tmp_path, most_bytes=4_000)
    trail.arrive("c").end()
    await trail.flush()
    assert read(trail).names == ("a", "c")


async def test_what_cannot_be_written_is_said_once_and_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    trail = Trail(tmp_path / "file" / "state", most_bytes=4_000)
    for _ in range(3):
        trail.arrive("m").end()
        await trail.flush()
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text
