"""Templates that come with a request: one place in a sentence. They are no format strings, because those reach into objects."""

from __future__ import annotations

from .contract import BadInput, shown

_PLACES = ("{}", "{label}")


def fill(template: str, label: str) -> str:
    """``template`` with ``label`` at its one place.

    >>> fill("This is about {}.", "music"), fill("{label}?", "{}")
    ('This is about music.', '{}?')
    """
    before, place, after = template.partition(_PLACES[0] if _PLACES[0] in template else _PLACES[1])
    if not place or any(brace in before + after for brace in "{}"):
        raise BadInput(
            f"parameter 'hypothesis_template' must have one {{}} for the label and no other braces, found {shown(template)!r}"
        )
    return before + label + after
