"""The table of tasks is whole, and who has code for its rows has it for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelium.gateway.codecs.answers import WRITERS
from modelium.gateway.codecs.inputs import READERS
from modelium.signatures import SERVE_APP, signature
from modelium.values import Gives, ModelProfile, ServeApp, Takes, Task
from modelium.values.tasks import TASKS

# These have codecs of their own: encode_table, encode_tensors and gateway/predict/apps.py.
_BY_THEMSELVES_TAKEN = {Takes.TABLES, Takes.TENSORS, Takes.REQUESTS}
_BY_THEMSELVES_GIVEN = {Gives.CELLS, Gives.TENSORS, Gives.RESPONSES}


def test_every_task_has_its_row() -> None:
    assert set(TASKS) == set(Task)


def test_every_shape_is_some_tasks_and_has_its_codec() -> None:
    assert {row.takes for row in TASKS.values()} == set(Takes) == set(READERS) | _BY_THEMSELVES_TAKEN
    assert {row.gives for row in TASKS.values()} == set(Gives) == set(WRITERS) | _BY_THEMSELVES_GIVEN
    assert not set(READERS) & _BY_THEMSELVES_TAKEN
    assert not set(WRITERS) & _BY_THEMSELVES_GIVEN


@pytest.mark.parametrize("task", Task)
def test_a_row_is_of_one_piece(task: Task) -> None:
    row = task.row
    assert row.batch > 0
    assert bool(row.inputs) == bool(row.outputs) == (task not in (Task.SERVE_APP, Task.TENSORS)), "those say themselves what"
    assert bool(row.text_key) == (row.generates and not row.continues)
    assert row.refines is None or row.refines.row.refines is None, "of one family there is one name"
    assert not row.model_types or row.refines is not None
    assert not row.only_ray or not (row.families or row.auto_classes)


def test_no_family_and_no_auto_class_is_of_two_tasks() -> None:
    for names in ([f for row in TASKS.values() for f in row.families], [a for row in TASKS.values() for a in row.auto_classes]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("task", [task for task in Task if task not in (Task.SERVE_APP, Task.TENSORS)])
def test_the_signature_is_the_rows(task: Task) -> None:
    profile = ModelProfile(
        name="m",
        path=Path("m"),
        task=task,
        library="transformers",
        architecture="A",
        embedding_width=3 if task.row.embeds else None,
    )
    made = signature(profile)
    assert [tensor.name for tensor in made.inputs] == [*(tensor.name for tensor in task.row.inputs), "PARAMETERS"]
    assert [tensor.name for tensor in made.outputs] == [tensor.name for tensor in task.row.outputs]
    assert not task.row.embeds or made.outputs[0].dims == (3,)


def test_an_application_has_a_signature_of_its_own() -> None:
    app = ServeApp(import_path="serve_app:app")
    assert (
        signature(ModelProfile(name="a", path=Path("a"), task=Task.SERVE_APP, library="ray-serve", architecture="", app=app))
        is SERVE_APP
    )
