"""Each error that a request can meet has a row in HTTP's table."""

from __future__ import annotations

import inspect

import pytest

from modelium import errors
from modelium.gateway.http.statuses import STATUSES, status_of
from modelium.gateway.openai.errors import BadRequest

# Of these none reaches a client but as "something broke inside Modelium".
_INSIDE = {errors.ConfigError, errors.EntryError, errors.RuntimeMissing}
_NAMED = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.ModeliumError) and "type" in vars(kind)
]


@pytest.mark.parametrize("kind", _NAMED, ids=lambda kind: kind.__name__)
def test_what_has_a_word_of_its_own_has_a_row_of_its_own(kind: type[errors.ModeliumError]) -> None:
    assert (kind in STATUSES) is not (kind in _INSIDE) or issubclass(kind, errors.TooMuchUnderWay)


def test_others_have_the_status_of_what_they_are_derived_from() -> None:
    assert status_of(errors.OutOfMemory("no memory")) == status_of(errors.LoadFailed) == 503
    assert status_of(BadRequest("no")) == 400
    assert status_of(errors.IllegalTransition("no")) == 500
