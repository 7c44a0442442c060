"""The ledger: facts come back after a restart, a broken file or a full disk hurts nobody, old facts are forgotten."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from modelium.brain.arrivals import began, learned
from modelium.ledger import Facts, Ledger
from modelium.values import Arrivals

DAY_S = 24 * 3600.0
MANNER = "python host 32x1"


class Clock:
    def __init__(self) -> None:
        self.now = 1.8e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.json"


def test_an_absent_ledger_is_an_empty_one(path: Path) -> None:
    ledger = Ledger.load(path)
    assert ledger.facts("bert", "f1") == Facts()
    assert not ledger.pinned("bert")
    assert ledger.save()
    assert not path.exists()


def test_what_was_learned_survives_a_restart(path: Path) -> None:
    ledger = Ledger.load(path)
    ledger.remember_pin("bert", True)
    ledger.remember_pin("vit", True)
    ledger.remember_pin("vit", False)
    ledger.remember_load("bert", "f1", load_seconds=4.5)
    ledger.remember_measurement("bert", "f1", 420, manner=MANNER)
    ledger.remember_quarantine("broken", "f2", "no such layer: größe", seal="s")
    assert ledger.save()
    again = Ledger.load(path)
    assert again.pinned("bert")
    assert not again.pinned("vit")
    assert again.facts("bert", "f1") == Facts(measured_bytes=420, measured={MANNER: 420}, load_seconds=4.5, loaded=True)
    assert again.facts("broken", "f2") == Facts(quarantine="no such layer: größe", quarantine_seal="s")
    assert again.facts("broken", "f3") == Facts()


def test_one_revision_of_a_model_is_loaded_at_a_time(path: Path) -> None:
    ledger = Ledger(path)
    ledger.remember_load("bert", "f1", load_seconds=1)
    ledger.remember_load("bert", "f2", load_seconds=2)
    assert (ledger.facts("bert", "f1").loaded, ledger.facts("bert", "f2").loaded) == (False, True)
    ledger.remember_unload("bert", "f2")
    assert ledger.facts("bert", "f2") == Facts(load_seconds=2)


def test_a_load_that_works_ends_a_quarantine(path: Path) -> None:
    ledger = Ledger(path)
    ledger.remember_quarantine("bert", "f1", "boom", seal="s")
    ledger.remember_load("bert", "f1", load_seconds=1)
    assert (ledger.facts("bert", "f1").quarantine, ledger.facts("bert", "f1").quarantine_seal) == (None, "")


def test_saving_writes_only_what_changed(path: Path) -> None:
    ledger = Ledger(path)
    ledger.remember_measurement("bert", "f1", 420, manner=MANNER)
    ledger.save()
    path.unlink()
    ledger.remember_measurement("bert", "f1", 420, manner=MANNER)
    ledger.remember_unload("bert", "f1")
    ledger.remember_pin("bert", False)
    assert ledger.save()
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema": 1, "pinned": 7}', b'{"schema": 99}', b'{"revisions": [{"name": 1}]}'],
)
def test_a_broken_ledger_is_set_aside_with_a_warning(path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        ledger = Ledger.load(path)
    assert path.with_suffix(".broken.json").read_bytes() == content
    assert "set aside" in caplog.text
    ledger.remember_pin("bert", True)
    assert ledger.save()
    assert Ledger.load(path).pinned("bert")


def test_a_disk_that_cannot_be_written_is_said_once_and_tried_again(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.write_text("a file where the state directory should be")
    ledger = Ledger(path)
    ledger.remember_pin("bert", True)
    with caplog.at_level(logging.WARNING):
        assert not ledger.save()
        assert not ledger.save()
    assert len(caplog.records) == 1
    assert ledger.pinned("bert")
    path.parent.unlink()
    assert ledger.save()
    assert Ledger.load(path).pinned("bert")
    assert [entry.name for entry in path.parent.iterdir()] == ["ledger.json"]


def test_a_full_disk_leaves_the_old_ledger_whole(path: Path) -> None:
    ledger = Ledger(path)
    ledger.remember_pin("bert", True)
    ledger.save()
    before = path.read_bytes()
    path.with_suffix(".tmp").symlink_to("/dev/full")  # the kernel's disk that is always full
    ledger.remember_pin("vit", True)
    assert not ledger.save()
    assert path.read_bytes() == before
    assert ledger.save()
    assert Ledger.load(path).pinned("vit")


def test_facts_are_forgotten_after_90_days_without_the_model(path: Path) -> None:
    clock = Clock()
    ledger = Ledger(path, clock=clock)
    ledger.remember_measurement("kept", "f", 1, manner=MANNER)
    ledger.remember_measurement("gone", "f", 1, manner=MANNER)
    ledger.save()
    for _ in range(4):
        clock.now += 30 * DAY_S
        ledger = Ledger.load(path, clock=clock)
        ledger.facts("kept", "f")
        ledger.save()
    assert ledger.facts("kept", "f").measured_bytes == 1
    assert ledger.facts("gone", "f") == Facts()


def test_the_ledger_is_bounded(path: Path) -> None:
    clock = Clock()
    ledger = Ledger(path, clock=clock)
    for number in range(5_010):
        clock.now += 1
        ledger.remember_measurement("model", str(number), number, manner=MANNER)
    ledger.save()
    assert len(json.loads(path.read_text())["revisions"]) == 5_000
    assert ledger.facts("model", "9") == Facts()
    assert ledger.facts("model", "10").measured_bytes == 10


def asked_daily_at(hour: float) -> Arrivals:
    """On a clock whose zero is now."""
    arrivals = began(Arrivals(), hour * 3600)
    for day in range(1, 6):
        arrivals = learned(arrivals, DAY_S, day * DAY_S + hour * 3600)
    return arrivals


def test_arrivals_survive_a_restart_by_the_hour_of_the_day(path: Path) -> None:
    clock = Clock()
    ledger = Ledger(path, clock=clock, ticks=lambda: 0.0)
    ledger.remember_arrivals("nightly", asked_daily_at(2.5))
    ledger.remember_arrivals("never", Arrivals())
    assert ledger.save(all_of_it=True)
    clock.now += 5 * 3600
    again = Ledger.load(path, clock=clock, ticks=lambda: 0.0).arrivals("nightly")
    assert again.hours.index(max(again.hours)) == (2 - 5) % 24
    assert again.gaps == pytest.approx(asked_daily_at(2.5).gaps, abs=0.002) and again.span_s == 5 * DAY_S
    assert Ledger.load(path).arrivals("never") == Arrivals()


def test_arrivals_alone_are_written_every_few_minutes_and_at_the_end(path: Path) -> None:
    clock = Clock()
    ledger = Ledger(path, clock=clock)
    ledger.remember_arrivals("m", learned(Arrivals(), 60.0, 60.0))
    assert ledger.save() and not path.exists()
    clock.now += 300
    assert ledger.save() and path.exists()
    ledger.remember_arrivals("m", learned(Arrivals(), 70.0, 60.0))
    before = path.read_bytes()
    assert ledger.save() and path.read_bytes() == before
    assert ledger.save(all_of_it=True) and path.read_bytes() != before


def test_arrivals_are_bounded_the_latest_are_kept(path: Path) -> None:
    ledger = Ledger(path)
    for number in range(5_100):
        ledger.remember_arrivals(f"m{number}", learned(Arrivals(), 60.0, 60.0))
    ledger.remember_arrivals("m0", learned(Arrivals(), 70.0, 60.0))
    assert ledger.save(all_of_it=True)
    again = Ledger.load(path)
    assert again.arrivals("m0").gaps and again.arrivals("m5099").gaps and not again.arrivals("m1").gaps
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("gaps", [{"3": -1.0}, {"3": float("inf")}, {"3": float("nan")}])
def test_arrivals_that_make_no_sense_are_none(path: Path, gaps: dict[str, float]) -> None:
    ledger = Ledger(path)
    ledger.remember_pin("m", True)
    ledger.remember_arrivals("m", learned(Arrivals(), 60.0, 60.0))
    assert ledger.save()
    book = json.loads(path.read_bytes())
    book["rhythms"][0]["gaps"] = gaps
    path.write_text(json.dumps(book), encoding="utf-8")
    again = Ledger.load(path)
    assert again.arrivals("m") == Arrivals()
