"""One process that computes tasks as Triton's stub does, for tests of what a task answers: no server has to load each model.

What enters: test models, analysed and configured as for Triton, and rows. What leaves: each row's outputs, or its fault.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelium.repository.config import build_config
from modelium.repository.writing import Order
from modelium.resources import templates_directory
from modelium.values import ModelOverride, ModelProfile
from tests.models import ROOT, RUNTIME
from tests.server.conftest import find_model, on_host, profile_of

_TEMPLATE = templates_directory() / "python"


class TaskError(Exception):
    """A row's fault, or what a load said; ``kind`` is the class's name in the runtime."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row. An input is text, texts, or bytes."""

    inputs: Mapping[str, object]
    parameters: Mapping[str, object]

    @classmethod
    def of(cls, case: Mapping[str, Any], models: Path) -> Question:
        """A case of a reference, with the bytes of its files."""
        inputs = {
            name: (models / "files" / value["file"]).read_bytes() if isinstance(value, dict) else value
            for name, value in case["inputs"].items()
        }
        return cls(inputs=inputs, parameters=case["parameters"])

    def written(self) -> dict[str, object]:
        return {"inputs": {name: _written(value) for name, value in self.inputs.items()}, "parameters": dict(self.parameters)}


class TaskProcess:
    """The model runtime's interpreter with the template's code, one model at a time."""

    def __init__(self, models: Path) -> None:
        self._models = models
        command = [str(RUNTIME / "bin" / "python"), "-m", "tests.models.answering", str(_TEMPLATE)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._loaded: tuple[str, ModelOverride | None] | None = None

    def load(self, name: str, override: ModelOverride | None = None, path: Path | None = None) -> ModelProfile:
        """Analyse a folder (default: the test model of that name) and load it as its entry says, if it is not the last one."""
        path = path or find_model(self._models, name)
        profile = profile_of(name, path, override)
        if self._loaded != (str(path), override):
            self._loaded = None
            template = (_TEMPLATE / "config.pbtxt").read_text(encoding="utf-8")
            order = Order(
                profile=profile,
                placement=on_host(profile),
                source=path,
                seen_by_triton=str,
                override=override or ModelOverride(),
            )
            config = build_config(order, template)
            self._call({"load": {key: value.string_value for key, value in config.parameters.items()}})
            self._loaded = (str(path), override)
        return profile

    def ask(self, inputs: Mapping[str, object], **parameters: object) -> dict[str, Any]:
        """One row. Raises ``TaskError``."""
        return self.ask_one(Question(inputs=inputs, parameters=parameters))

    def ask_one(self, question: Question) -> dict[str, Any]:
        """One row. Raises ``TaskError``."""
        answer = self.ask_rows([question])[0]
        if isinstance(answer, TaskError):
            raise answer
        return answer

    def ask_rows(self, questions: Sequence[Question]) -> list[dict[str, Any] | TaskError]:
        """Rows that are computed together."""
        rows = self._call({"ask": [question.written() for question in questions]})["rows"]
        return [TaskError(row["error"], row["kind"]) if "kind" in row else row for row in rows]

    def imported(self, *names: str) -> list[str]:
        """Those modules that it has imported."""
        return list(self._call({"imported": names})["imported"])

    def close(self) -> None:
        """End it and wait for its end."""
        self._process.kill()
        with self._process:  # closes its pipes, waits
            pass

    def _call(self, said: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(said) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended ({self._process.wait()}); its words are on standard error")
        reply: dict[str, Any] = json.loads(line)
        if "kind" in reply:
            raise TaskError(reply["error"], reply["kind"])
        return reply


def as_tensors(answer: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """A row's outputs as Triton's client has them: text as bytes."""
    return {name: _tensor(values) for name, values in answer.items()}


def _tensor(values: list[Any]) -> np.ndarray[Any, Any]:
    if any(isinstance(value, str) for value in values):
        return np.array([value.encode() for value in values], dtype=np.object_)
    return np.array(values)


def _written(value: object) -> object:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return [_written(item) for item in value] if isinstance(value, list) else value
