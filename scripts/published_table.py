"""What the analyzers say of the collected models beside what is published: a table, and how far off the worst are.

    .venv/bin/python scripts/published_table.py [--all]     lines of those that are off; with --all, of every model

What enters: tests/data/published. What leaves: text on standard output. The largest mixtures take some seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modelium.values import AttentionKind, LanguageModel, ModelProfile
from tests.published import Published, analysis_of, collection, parameters

_FACTS = ("parameters", "active parameters", "context", "KV bytes a token", "loaded bytes")
_EXACT = 1e-4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    chosen = parser.parse_args()
    errors: dict[str, list[float]] = {fact: [] for fact in _FACTS}
    tasks = refused = 0
    for name, entry in collection().items():
        found = analysis_of(name)
        if not isinstance(found, ModelProfile):
            refused += 1
            print(f"{name:44} not served: {getattr(found, 'why', found)}")
            continue
        tasks += found.task.value == entry.facts.task
        told = list(compare(entry, found))
        for fact, said, ours in told:
            errors[fact].append(abs(ours / said - 1) if said else float(ours != said))
        off = [f"{fact} {ours:,} of {said:,.0f} ({ours / said - 1:+.1%})" for fact, said, ours in told if said and ours != said]
        if chosen.all or any(abs(ours / said - 1) > 0.02 for _, said, ours in told if said) or found.task != entry.facts.task:
            print(f"{name:44} {found.task.value:28} {'; '.join(off) or 'exact'}")
    print(f"\n{len(collection())} models, {refused} not served; task right {tasks} of {len(collection()) - refused}")
    print(f"{'fact':20} {'compared':>8} {'exact':>6} {'median':>8} {'p90':>8} {'worst':>8}")
    for fact, found_errors in errors.items():
        ordered = sorted(found_errors)
        if ordered:
            exact = sum(error < _EXACT for error in ordered)
            p90 = ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]
            numbers = (statistics.median(ordered), p90, ordered[-1])
            print(f"{fact:20} {len(ordered):8} {exact:6} " + " ".join(f"{number:8.2%}" for number in numbers))
    return 0


def compare(entry: Published, found: ModelProfile) -> Iterator[tuple[str, float, float]]:
    """Fact, as published, as found."""
    facts, language = entry.facts, found.language
    if facts.parameters is not None:
        yield "parameters", parameters(facts.parameters), found.parameters
    if facts.loaded_bytes is not None:
        yield "loaded bytes", facts.loaded_bytes, found.loaded_bytes
    if language is None:
        return
    if facts.active_parameters is not None:
        yield "active parameters", parameters(facts.active_parameters), language.active_parameters
    if facts.context_length is not None:
        yield "context", facts.context_length, language.context_length or 0
    if facts.kv_bytes_per_token is not None:
        yield "KV bytes a token", facts.kv_bytes_per_token, token_bytes(language)


def token_bytes(language: LanguageModel) -> int:
    """What the next token of a long request adds to the cache, in 16 bits."""
    total = 0
    for group in language.groups:
        if group.kind is AttentionKind.FULL:
            total += 2 * group.layers * group.kv_heads * (group.head_size + (group.value_head_size or group.head_size))
        elif group.kind is AttentionKind.LATENT:
            total += 2 * group.layers * group.latent_width
    return total


if __name__ == "__main__":
    sys.exit(main())
