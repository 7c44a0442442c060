"""Names: what enters is a label as the user sees it (``org/name``, any unicode), what leaves is a served name.

A served name is the entry's directory name, Triton's model name and a part of URLs, so it keeps to ``[A-Za-z0-9._-]``
(Triton refuses shell characters in names and does not percent-decode paths). The map is reversible and injective:

* allowed characters stay, ``/`` becomes ``--``;
* any other run of characters becomes ``_0x`` + its UTF-8 bytes in hex + ``_``: ``my model`` → ``my_0x20_model``;
* what would read as one of these is escaped the same way: a ``-`` beside another ``-`` or a ``/``, and a ``_`` before
  ``0x`` and two hex digits;
* a leading ``.``, ``-`` or ``/`` is escaped too: no hidden directory, no ``..``, nothing that looks like an option.

>>> served_name("sentence-transformers/all-MiniLM-L6-v2")
'sentence-transformers--all-MiniLM-L6-v2'
>>> served_name("my model")
'my_0x20_model'
"""

from __future__ import annotations

import hashlib
import re

LONGEST_NAME = 200
LONGEST_WORDS = 600  # of what is said about a model

_TO_ESCAPE = re.compile(
    r"""(?P<escape> (?: ^[./-]                # hidden, an option, or an empty first part
                      | (?<=[-/])- | -(?=[-/])  # a dash beside a dash or a slash
                      | _(?=0x[0-9a-f]{2})    # would read as an escape
                      | [^A-Za-z0-9._/-]
                    )+ )
      | /""",
    re.VERBOSE,
)
_CACHE_FOLDER = re.compile(r"models--(?!-)(.+)")


def served_name(label: str) -> str:
    """The name that a label is served under. Raises ``ValueError`` with the remedy when there is none."""
    if not label:
        raise ValueError("an empty name cannot be served")
    name = _TO_ESCAPE.sub(_escape, label)
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name is {len(name)} characters long when served, {LONGEST_NAME} at most: use a shorter one")
    return name


def stand_in_name(label: str) -> str:
    """A valid name for a label that ``served_name`` refuses, so that the refusal can be shown under some name."""
    return f"unnamed-{hashlib.sha256(label.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def cache_label(folder: str) -> str | None:
    """The label of a Hugging Face cache folder: ``models--ORG--NAME`` → ``ORG/NAME``, None for any other name."""
    match = _CACHE_FOLDER.fullmatch(folder)
    return match[1].replace("--", "/", 1) if match else None


def printable(text: str, *, longest: int | None = LONGEST_WORDS) -> str:
    """``text`` as valid Unicode, cut to ``longest`` characters: what a name, a file or an error says may be anything.

    >>> printable("half a pair: \\ud83d")
    'half a pair: \\\\ud83d'
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]} …"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _escape(match: re.Match[str]) -> str:
    run = match["escape"]
    # surrogateescape: a file name that is not UTF-8 keeps its bytes
    return "--" if run is None else f"_0x{run.encode('utf-8', 'surrogateescape').hex()}_"
