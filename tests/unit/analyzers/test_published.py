"""What the analyzers say of published models, held against what their authors published (tests/data/published)."""

from __future__ import annotations

from tests.published import collection, tensors_of


def test_the_collection_is_large_and_says_where_it_is_from() -> None:
    entries = collection()
    assert len(entries) >= 60
    for name, entry in entries.items():
        assert all(source.startswith("https://") for source in (entry.sources["config"], entry.sources["facts"])), name
        assert entry.tensors and entry.facts.task, name
        first, *_ = tensors_of(entry)
        assert "{" not in first[0] and first[1].isupper(), name
