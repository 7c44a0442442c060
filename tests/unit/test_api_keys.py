"""API keys: what a file may hold, what is said of one that cannot be used, and that a change counts at once."""

from __future__ import annotations

import logging
import os
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.api_keys import SHORTEST_KEY, ApiKeys, is_key, read_keys, readable_by_all
from modelium.errors import ConfigError
from modelium.values import Asker, Priority

FIRST, SECOND, THIRD = "first-key-0123456789", "second+key/0123456789==", "sk-third_key.0123~456"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def replaced(path: Path, text: str) -> None:
    """As an editor or Kubernetes does it: a new file takes the old one's name."""
    written(path.with_name("beside"), text).replace(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "keys", f"# people\nana: {FIRST}\n\n  ci:{SECOND}  \n{THIRD}\n")


# -- what a file may hold ------------------------------------------------------------------------------------------


def test_a_file_has_a_key_a_line_with_a_name_or_without(file: Path) -> None:
    assert [(key.name, key.key) for key in read_keys(file)] == [("ana", FIRST), ("ci", SECOND), ("line 5", THIRD)]


def test_a_line_may_say_how_urgent_its_requests_may_be(tmp_path: Path) -> None:
    path = written(tmp_path / "keys", f"ana: {FIRST}\n  batch: {SECOND}   priority=low  \n{THIRD} priority=high\n")
    assert [key.priority for key in read_keys(path)] == [None, Priority.LOW, Priority.HIGH]
    keys = ApiKeys(path)
    found = keys.find(SECOND)
    assert found is not None and found.name == "batch" and keys.find("priority=low") is None
    assert found.asker(None) == found.asker(Priority.HIGH) == Asker("batch", Priority.LOW)


@pytest.mark.parametrize("line", ["{} priority=urgent", "{} priority = low", "{}priority=low x", "{} low"])
def test_a_priority_that_is_none_is_no_key(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=r"line 1 of .* is no key: .*priority=high\|normal\|low"):
        ApiKeys(written(tmp_path / "keys", line.format(FIRST)))


def test_a_key_shows_itself_nowhere(file: Path) -> None:
    assert FIRST not in repr(read_keys(file)) and FIRST not in repr(vars(ApiKeys(file)))


@pytest.mark.parametrize(
    "line", ["two words-0123456789", "a: b: c0123456789abc", "schlüssel-0123456789", '"in-quotes-0123456789"']
)
def test_a_line_that_is_no_key_is_named_by_its_number_alone(tmp_path: Path, line: str) -> None:
    path = written(tmp_path / "keys", f"{FIRST}\n{line}\n")
    with pytest.raises(ConfigError, match=r"line 2 of .* is no key") as caught:
        ApiKeys(path)
    assert "0123456789" not in str(caught.value)


def test_a_key_that_can_be_guessed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"line 1 .* fewer than 16 characters; `openssl rand") as caught:
        ApiKeys(written(tmp_path / "keys", "hunter2"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# none yet\n\n"])
def test_a_file_without_a_key_is_no_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="there is no key in"):
        ApiKeys(written(tmp_path / "keys", text))


def test_a_file_that_cannot_be_read_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gateway\.api_keys_file: .*nowhere cannot be read: No such file"):
        ApiKeys(tmp_path / "nowhere")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        ApiKeys(tmp_path / "bytes")


def test_who_may_read_the_file_is_seen(file: Path) -> None:
    for mode, seen in ((0o644, True), (0o640, False), (0o400, False)):
        file.chmod(mode)
        assert readable_by_all(file) is seen


# -- knowing -------------------------------------------------------------------------------------------------------


def test_every_key_is_known_and_nothing_else(file: Path) -> None:
    keys = ApiKeys(file)
    assert len(keys) == 3
    assert all(keys.know(key) for key in (FIRST, SECOND, THIRD))
    assert not any(keys.know(sent) for sent in ("", FIRST[:-1], FIRST + "0", FIRST.upper(), "ana", f"ana: {FIRST}", "\udcff"))


@given(st.text(string.ascii_letters + string.digits + "._~+/=-", min_size=SHORTEST_KEY, max_size=200), st.text())
def test_what_is_written_is_known_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, key: str, other: str) -> None:
    keys = ApiKeys(written(tmp_path_factory.mktemp("keys") / "keys", key))
    assert is_key(key) and keys.know(key)
    assert keys.know(other) == (other == key)


# -- changing ------------------------------------------------------------------------------------------------------


def test_a_rotation_counts_from_the_next_question_on(file: Path) -> None:
    keys = ApiKeys(file)
    replaced(file, SECOND)
    assert keys.know(SECOND) and not keys.know(FIRST)
    assert len(keys) == 1


def test_a_secret_that_kubernetes_rotates_is_seen(tmp_path: Path) -> None:
    """There the file is a link to ``..data/keys``, and ``..data`` a link that is moved to another directory."""
    for name, key in (("..1", FIRST), ("..2", SECOND)):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "keys", key)
        os.utime(tmp_path / name / "keys", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = ApiKeys(tmp_path / "keys")
    assert keys.know(FIRST)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert keys.know(SECOND) and not keys.know(FIRST)


def test_the_last_key_taken_out_lets_nobody_in(file: Path) -> None:
    keys = ApiKeys(file)
    replaced(file, "# all withdrawn\n")
    assert not any(keys.know(key) for key in (FIRST, SECOND, THIRD))


def test_a_file_that_breaks_changes_nothing_and_is_told_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ApiKeys(file)
    with caplog.at_level(logging.INFO, logger="modelium"):
        replaced(file, f"{SECOND}\nthis is no key\n")
        assert keys.know(FIRST) and keys.know(FIRST)
        file.unlink()
        assert keys.know(FIRST) and keys.know(FIRST)
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert all("the previous keys remain in effect" in record.message for record in caplog.records)
    assert SECOND not in caplog.text and "this is no key" not in caplog.text.replace("is no key:", "")
    written(file, THIRD)
    assert keys.know(THIRD) and not keys.know(FIRST)
