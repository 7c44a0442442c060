"""``replaced`` is ``dataclasses.replace``, sooner."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.brain.usage import UsageWindow
from modelium.values import ModelView, Usage
from modelium.values.replacing import replaced
from tests.unit.brain.worlds import loaded


@pytest.mark.parametrize("value", [Usage(), UsageWindow(total=3), loaded("m")], ids=lambda value: type(value).__name__)
@given(data=st.data())
def test_it_is_what_dataclasses_replace_makes(value: Usage | UsageWindow | ModelView, data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from([field.name for field in fields(value)])))
    changes: dict[str, Any] = {name: data.draw(st.integers()) for name in names}
    before = replace(value)
    assert replaced(value, **changes) == replace(value, **changes)
    assert value == before


def test_a_name_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Usage has not all of the fields"):
        replaced(Usage(), **cast("Any", {"requests": 1, "request": 2}))
