"""Names: the map between labels and served names is reversible, injective and safe as a directory name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.names import LONGEST_NAME, cache_label, served_name, stand_in_name

# Short texts of the characters that the map treats specially, beside any unicode at all.
LABELS = st.one_of(st.text(alphabet="-_/.0x2faA é日 ", min_size=1, max_size=14), st.text(min_size=1, max_size=14))


def label_of(name: str) -> str:
    """The inverse of ``served_name``: that there is one makes it lose nothing."""
    return re.sub(r"_0x((?:[0-9a-f]{2})+)_|--", _unescaped, name)


def _unescaped(match: re.Match[str]) -> str:
    return "/" if match[1] is None else bytes.fromhex(match[1]).decode("utf-8", "surrogateescape")


@given(LABELS)
def test_a_label_comes_back_from_its_name(label: str) -> None:
    assert label_of(served_name(label)) == label


@given(LABELS, LABELS)
def test_two_labels_never_share_a_name(one: str, other: str) -> None:
    assert (served_name(one) == served_name(other)) == (one == other)


@given(LABELS)
def test_a_name_is_safe_as_directory_and_in_a_url(label: str) -> None:
    name = served_name(label)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    assert name not in {".", ".."}


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("bert_base.v1", "bert_base.v1"),
        ("org/name", "org--name"),
        ("my model", "my_0x20_model"),
        ("a--b", "a_0x2d2d_b"),
        ("org/-x", "org--_0x2d_x"),
        ("..", "_0x2e_."),
        ("linux_x86_64", "linux_x86_64"),
        ("a_0x20_", "a_0x5f_0x20_"),
        ("日本", "_0xe697a5e69cac_"),
        ("a//b", "a----b"),
    ],
)
def test_names_read_as_documented(label: str, name: str) -> None:
    assert served_name(label) == name


def test_bytes_that_are_no_utf8_survive() -> None:
    label = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert served_name(label) == "caf_0xe9_"
    assert label_of("caf_0xe9_") == label


@pytest.mark.parametrize("label", ["", "x" * (LONGEST_NAME + 1), "é" * 60, "a/" + "b" * 300])
def test_a_name_that_would_be_too_long_is_refused_with_the_remedy(label: str) -> None:
    with pytest.raises(ValueError, match=r"empty|shorter"):
        served_name(label)
    assert served_name(stand_in_name(label)) == stand_in_name(label)


def test_the_longest_name_passes() -> None:
    assert served_name("x" * LONGEST_NAME) == "x" * LONGEST_NAME


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("models--sentence-transformers--all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("models--gpt2", "gpt2"),
        ("models--", None),
        ("datasets--org--name", None),
        ("model", None),
    ],
)
def test_a_cache_folder_has_the_hubs_label(folder: str, label: str | None) -> None:
    assert cache_label(folder) == label
