"""The parameters that the gateway lets through are those that the python runtime reads: one misspelt name on either side would
turn a valid request into an error. The runtime lives in another environment, so its source is read, not imported."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import InferenceClient

from modelium.gateway.codecs.parameters import ELSEWHERE, NESTED
from modelium.values import Task

TEMPLATES = Path(__file__).parents[3] / "repository_templates"
RUNTIME = TEMPLATES / "python" / "1"
PAINTING = TEMPLATES / "ray" / "1" / "modelium_ray" / "adapters" / "text_to_image.py"
ANSWERED_BY_THE_GATEWAY = {"details"}
# Arguments of the client's methods that are no parameters of the request's body.
NOT_PARAMETERS = {
    "self", "model", "text", "image", "audio", "question", "context", "prompt", "sentence", "other_sentences", "stream",
    "candidate_labels", "extra_body", "stop_sequences",
}  # fmt: skip
METHODS: dict[Task, Callable[..., object]] = {
    Task.FEATURE_EXTRACTION: InferenceClient.feature_extraction,
    Task.SENTENCE_SIMILARITY: InferenceClient.sentence_similarity,
    Task.TEXT_CLASSIFICATION: InferenceClient.text_classification,
    Task.TOKEN_CLASSIFICATION: InferenceClient.token_classification,
    Task.FILL_MASK: InferenceClient.fill_mask,
    Task.QUESTION_ANSWERING: InferenceClient.question_answering,
    Task.ZERO_SHOT_CLASSIFICATION: InferenceClient.zero_shot_classification,
    Task.TEXT_GENERATION: InferenceClient.text_generation,
    Task.TRANSLATION: InferenceClient.translation,
    Task.SUMMARIZATION: InferenceClient.summarization,
    Task.IMAGE_CLASSIFICATION: InferenceClient.image_classification,
    Task.OBJECT_DETECTION: InferenceClient.object_detection,
    Task.AUTOMATIC_SPEECH_RECOGNITION: InferenceClient.automatic_speech_recognition,
    Task.AUDIO_CLASSIFICATION: InferenceClient.audio_classification,
}


def read_by(task: Task) -> str:
    """The class of the parameters that the runtime's code for ``task`` parses."""
    table = next(
        node.value
        for node in ast.parse((RUNTIME / "tasks.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "TASKS"
    )
    module, name = ast.literal_eval(table)[task.value]
    body = ast.parse((RUNTIME / f"{module.removeprefix('.')}.py").read_text(encoding="utf-8")).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    named = {node.id for node in ast.walk(classes[name]) if isinstance(node, ast.Name)}  # a class may choose among others
    (parsed,) = {
        node.args[0].id
        for code in (classes[each] for each in (name, *sorted(named)) if each in classes)
        for node in ast.walk(code)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "parse_parameters"
        and isinstance(node.args[0], ast.Name)
    }
    return parsed


def parameters_of(*paths: Path) -> dict[str, set[str]]:
    """Field names of the ``…Parameters`` classes there, inherited ones included."""
    classes = {
        node.name: node
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Parameters")
    }

    def fields(name: str) -> set[str]:
        node = classes[name]
        own = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}
        return own.union(*(fields(base.id) for base in node.bases if isinstance(base, ast.Name)))

    return {name: fields(name) for name in classes}


@pytest.mark.parametrize("task", [task for task in Task if not task.row.only_ray and task is not Task.TENSORS])
def test_what_the_gateway_lets_through_the_runtime_reads(task: Task) -> None:
    assert set(task.row.parameters) - ANSWERED_BY_THE_GATEWAY <= parameters_of(*RUNTIME.glob("*.py"))[read_by(task)]


def test_what_the_gateway_lets_through_for_an_image_the_pipeline_reads() -> None:
    assert set(Task.TEXT_TO_IMAGE.row.parameters) == parameters_of(PAINTING)["Parameters"]


@pytest.mark.parametrize("task", METHODS)
def test_every_parameter_of_hugging_faces_client_is_honoured_or_refused_by_name(task: Task) -> None:
    sendable = set(inspect.signature(METHODS[task]).parameters) - NOT_PARAMETERS
    nested = NESTED if task.row.nested else ()
    assert sendable - task.row.parameters.keys() - ELSEWHERE - {*nested} == set()
