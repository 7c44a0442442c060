"""The log of decisions: lines of JSON that can be read again, bounded, and a full disk hurts nobody."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from modelium.decision_log import DecisionLog
from modelium.values import Decision, Verb, Weighed


def went(model: str, beneficiary: str = "") -> Decision:
    weighed = Weighed(model=model, goes=True, kept_by="", harm=0.01, idle_s=60.0, qps=0.0, next_s=None, load_s=6.0, bytes=2**30)
    return Decision(
        at=5.0, model=model, verb=Verb.UNLOAD, rule="evict.6", reason="größer", beneficiary=beneficiary, weighed=(weighed,)
    )


def test_each_decision_is_a_line(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "state" / "decisions.jsonl", clock=lambda: 1.8e9)
    log.note(went("a", "b"))
    log.note(went("c"))
    log.close()
    first, second = (json.loads(line) for line in (tmp_path / "state" / "decisions.jsonl").read_text("utf-8").splitlines())
    assert first["at"] == "2027-01-15T08:00:00.000+00:00" and first["reason"] == "größer"
    assert (first["model"], first["verb"], first["rule"], first["beneficiary"]) == ("a", "unload", "evict.6", "b")
    assert first["weighed"][0]["load_s"] == 6.0 and second["model"] == "c"
    assert [decision.model for decision in log.for_the_sake_of("b")] == ["a"]


def test_old_lines_are_dropped(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "decisions.jsonl", file_bytes=2_000)
    for number in range(2_000):
        log.note(went(f"m{number}", "b"))
    log.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.2", "decisions.jsonl.3"]
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.iterdir())
    assert len(log.for_the_sake_of("b")) == 1_000


def test_where_it_cannot_be_written_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "decisions.jsonl").mkdir()
    log = DecisionLog(tmp_path / "decisions.jsonl")
    with caplog.at_level(logging.INFO, logger="modelium"):
        for _ in range(3):
            log.note(went("a", "b"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(log.for_the_sake_of("b")) == 3
