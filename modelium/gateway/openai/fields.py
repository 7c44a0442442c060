"""Kinds of fields of ``/v1`` requests that may be long: what does not fit is noticed once, not once an element.

pydantic lists every fault of every branch of a union otherwise, for seconds, and nobody else is served meanwhile.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag

_MOST_ENTRIES = 4096

T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]  # the first element that does not fit is enough: there may be 100,000 of them


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
    Annotated[str, Tag("str")]
    | Annotated[Many[int], Tag("list[int]")]
    | Annotated[Many[str], Tag("list[str]")]
    | Annotated[Many[Many[int]], Tag("list[list[int]]")],
    Discriminator(_form),
]


def _limit(sent: object) -> object:
    if isinstance(sent, dict) and len(sent) > _MOST_ENTRIES:
        raise ValueError(f"has {len(sent)} entries, {_MOST_ENTRIES} are taken")
    return sent


Few = BeforeValidator(_limit)
