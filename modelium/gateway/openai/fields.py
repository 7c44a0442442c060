"""Kinds of fields of ``/v1`` requests that may be long: what does not fit is noticed once, not once an element, and what is
larger than any request needs goes neither to a model, nor to a grammar's compiler, nor to a template.

pydantic lists every fault of every branch of a union otherwise, for seconds, and nobody else is served meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Strict, Tag

from modelium.gateway.codecs.fields import MOST_ITEMS, MOST_TEXT_CHARACTERS, SHAPE_DEPTH, SHAPE_SIZE, excess
from modelium.gateway.codecs.parameters import LONGEST_WORD, MOST_WORDS

_MOST_ENTRIES = 4096
MOST_TOKEN_IDS = 2**18  # of one text: no model reads more of a prompt that comes as numbers
_ARGUMENTS_SIZE = 2**20  # of tools, and of what a template is given besides messages

T = TypeVar("T")
# The first element that does not fit is enough: there may be 100,000 of them.
Many = Annotated[list[T], Field(fail_fast=True, max_length=MOST_ITEMS)]
# Strict: true is no token id, though Python takes it for 1.
Ids = Annotated[list[Annotated[int, Strict()]], Field(fail_fast=True, max_length=MOST_TOKEN_IDS)]
FewIds = Annotated[list[Annotated[int, Strict(), Field(ge=0)]], Field(fail_fast=True, max_length=128)]  # vLLM's own limit
Text = Annotated[str, Field(max_length=MOST_TEXT_CHARACTERS)]
# The engine looks for each of them in the text of each token. As many as in /predict.
Word = Annotated[str, Field(max_length=LONGEST_WORD)]
Words = Annotated[list[Word], Field(fail_fast=True, max_length=MOST_WORDS)]


def _form(sent: object) -> str:
    """Which of ``Texts`` was sent, by its first element: to try all of them costs as many complaints an element."""
    if not isinstance(sent, list):
        return "str"
    match sent[:1]:
        case [int()]:
            return "list[int]"
        case [list()]:
            return "list[list[int]]"
        case _:
            return "list[str]"


Texts = Annotated[
    Annotated[Text, Tag("str")]
    | Annotated[Ids, Tag("list[int]")]
    | Annotated[Many[Text], Tag("list[str]")]
    | Annotated[Many[Ids], Tag("list[list[int]]")],
    Discriminator(_form),
]


def _limit(sent: object) -> object:
    if isinstance(sent, dict) and len(sent) > _MOST_ENTRIES:
        raise ValueError(f"has {len(sent)} entries, {_MOST_ENTRIES} are taken")
    return sent


Few = BeforeValidator(_limit)


def _at_most(size: int, depth: int) -> Callable[[object], object]:
    """JSON of that many characters and values, as deep as that."""

    def check(sent: object) -> object:
        if said := excess(sent, size=size, depth=depth):
            raise ValueError(said)
        return sent

    return check


Shape = BeforeValidator(_at_most(SHAPE_SIZE, SHAPE_DEPTH))
Arguments = BeforeValidator(_at_most(_ARGUMENTS_SIZE, SHAPE_DEPTH))
