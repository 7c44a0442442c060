"""What is told of models to those who listen, and how far loads are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.controller.news import Listener, News, Newsroom
from modelium.controller.progress import Progress
from modelium.values import LoadingStatus, LoadStage, State

NAMES = st.sampled_from(["a", "b"])


async def read(listener: Listener) -> list[News]:
    found = []
    while (news := await listener.next(0)) is not None:
        found.append(news)
    return found


@given(st.lists(NAMES, max_size=30), st.lists(NAMES, max_size=30), st.sampled_from(["", "a"]))
async def test_who_comes_back_has_missed_nothing(before: list[str], after: list[str], model: str) -> None:
    newsroom = Newsroom()
    for name in before:
        newsroom.tell(name, State.LOADED, "serving")
    seen = newsroom.last
    with newsroom.listening(model, lambda: None) as listener:
        for name in after:
            newsroom.tell(name, State.UNLOADED, "gone")
        heard = await read(listener)
    assert heard == newsroom.since(seen, model)
    assert [news.model for news in heard] == [name for name in after if model in ("", name)]
    assert [news.number for news in heard] == sorted({news.number for news in heard})
    assert not newsroom.listeners


async def test_who_does_not_read_is_cut_and_nobody_else() -> None:
    newsroom, cut = Newsroom(), list[str]()
    with newsroom.listening("", lambda: cut.append("slow")) as slow, newsroom.listening("", lambda: cut.append("fast")) as fast:
        heard = []
        for number in range(1000):
            newsroom.tell("m", State.LOADED, str(number))
            heard += await read(fast)
        assert cut == ["slow"] and slow.is_over and not fast.is_over
        assert await slow.next(60) is None, "what it did not read is not kept"
    assert [news.reason for news in heard] == [str(number) for number in range(1000)]


async def test_the_end_is_told_after_what_was_said() -> None:
    newsroom = Newsroom()
    with newsroom.listening("", lambda: None) as listener:
        newsroom.tell("m", State.LOADED, "serving")
        newsroom.close()
        assert not listener.is_over and await listener.next(60) is not None
        assert await listener.next(60) is None


def test_what_is_forgotten_or_never_was_is_not_made_up() -> None:
    newsroom = Newsroom()
    assert newsroom.since(0, "") == [] and newsroom.since(1, "") is None and newsroom.since(-1, "") is None
    for _ in range(2000):
        newsroom.tell("m", State.LOADED, "serving")
    assert newsroom.since(10, "") is None and newsroom.since(2001, "") is None
    assert [news.number for news in newsroom.since(1998, "") or ()] == [1999, 2000]


@pytest.mark.parametrize(
    ("usual_s", "after_s", "progress", "remaining_s"), [(0.0, 3.0, None, None), (4.0, 1.0, 0.25, 3.0), (4.0, 9.0, 0.99, 0.0)]
)
def test_progress_is_the_share_of_what_the_last_load_took(
    usual_s: float, after_s: float, progress: float | None, remaining_s: float | None
) -> None:
    now, told = [100.0], list[tuple[str, LoadStage]]()
    loads = Progress(lambda key, stage: told.append((key, stage)), clock=lambda: now[0])
    assert loads.of("m", usual_s) is None
    loads.enters("m", LoadStage.PREPARING)
    now[0] += 2.0
    before = loads.of("m", usual_s)
    assert before is not None and before.progress in (None, 0.0)
    loads.enters("m", LoadStage.LOADING)
    now[0] += after_s
    assert loads.of("m", usual_s) == LoadingStatus(
        stage=LoadStage.LOADING, seconds=2.0 + after_s, progress=progress, remaining_s=remaining_s
    )
    assert loads.keys() == ("m",) and told == [("m", LoadStage.PREPARING), ("m", LoadStage.LOADING)]
    loads.ends("m")
    assert loads.of("m", usual_s) is None and loads.keys() == ()
