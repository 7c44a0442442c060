"""Tasks of the python runtime through analysis, entry and the real Triton, compared with transformers' own answers.

Triton has to load each model, which takes as long as importing torch and transformers does: here are those whose way through
Triton no other test goes. ``test_predict.py`` asks a dozen more by way of the gateway, ``test_seeing.py`` one of text and
pictures; what all of them answer is compared without a server (``test_task_answers.py``).
"""

from __future__ import annotations

import asyncio

import pytest

from modelium.signatures import signature
from modelium.values import Task
from tests.models import ensure_models, reference
from tests.server.answers import EMBEDDINGS, as_pipeline, differences
from tests.server.conftest import Triton

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

# A table of vectors, weights in a pickle, a graph's weights with a tokenizer, a translator of many languages; the rest have
# outputs of their own.
NAMES = ("static", "classifier-pickle", "onnx-classifier", "nllb", "ranker", "dinov2", "whisper")


@pytest.mark.parametrize("name", NAMES)
async def test_answers_equal_the_references(triton: Triton, name: str) -> None:
    """One after the other, and all at once: a row's answer doesn't depend on who shares its batch."""
    ensure_models(names=[name])
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
