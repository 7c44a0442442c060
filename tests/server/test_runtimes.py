"""Every task of the python runtime through analysis, entry and the real Triton, compared with transformers' own answers."""

from __future__ import annotations

import asyncio

import pytest

from modelium.tasks import signature
from modelium.values import Task
from tests.models import ensure_models, reference
from tests.models.factory import MAKERS
from tests.server.answers import EMBEDDINGS, as_pipeline, differences
from tests.server.conftest import Triton

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("name", [name for name in MAKERS if not name.startswith("onnx")])
async def test_answers_equal_the_references(triton: Triton, name: str) -> None:
    """One after the other, and all at once: a row's answer doesn't depend on who shares its batch."""
    await compare(triton, name)


@pytest.mark.parametrize("name", ["onnx-classifier", "nllb"])
async def test_so_do_those_that_are_asked_without_a_server_elsewhere(triton: Triton, name: str) -> None:
    """A graph's weights with its tokenizer, and a translator of many languages (tests/server/test_task_answers.py)."""
    ensure_models(names=[name])
    await compare(triton, name)


async def compare(triton: Triton, name: str) -> None:
    """Every case of the reference."""
    profile = await triton.load(name)
    said = reference(triton.models, name)
    assert profile.task is Task(said["task"])
    cases = said["cases"]
    tolerance = 1e-5 if profile.task in EMBEDDINGS else 1e-4

    one_by_one = [await triton.ask(name, case["inputs"], case["parameters"]) for case in cases]
    together = await asyncio.gather(*[triton.ask(name, case["inputs"], case["parameters"]) for case in cases])

    declared = {tensor.name: tensor for tensor in signature(profile).outputs}
    for case, *answers in zip(cases, one_by_one, together, strict=True):
        for answer in answers:
            assert answer.keys() == declared.keys()
            assert all(answer[key].ndim == len(tensor.dims) for key, tensor in declared.items())
            found = as_pipeline(profile.task, answer, case["parameters"])
            assert differences(found, case["answer"], tolerance) == [], case["inputs"]
    await triton.unload(name)
