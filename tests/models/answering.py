"""``python -m tests.models.answering TEMPLATE``: the python runtime's tasks without a Triton. Runs in the model runtime.

What enters: a line of JSON each: ``{"load": parameters of config.pbtxt}``, ``{"ask": [{"inputs": …, "parameters": …}]}``, or
``{"imported": names}``. What leaves: a line each: ``{}``, ``{"rows": [outputs, or {"error": …, "kind": …}]}``, or the modules
of those names that there are. Loading anew drops what was loaded.
"""

from __future__ import annotations

import base64
import importlib
import json
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent.parent


def main(template: str) -> None:
    # The checkout's own directory "triton" would pass for the compiler of that name, which torch looks for.
    sys.path[:] = [template, *(place for place in sys.path if Path(place or ".").resolve() != _ROOT)]
    importlib.import_module("1.start")
    arrays, contract, finite, tasks = (
        importlib.import_module(f"1.{name}") for name in ("arrays", "contract", "finite", "tasks")
    )
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    answers_to, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    task: Any = None
    for line in sys.stdin:
        said = json.loads(line)
        try:
            if "load" in said:
                task = None
                task = tasks.load_task(tasks.read_settings(said["load"], "cpu"))
                reply: dict[str, Any] = {}
            elif "imported" in said:
                reply = {"imported": [name for name in said["imported"] if name in sys.modules]}
            else:
                rows = [_row(contract, one) for one in said["ask"]]
                with torch.inference_mode():
                    reply = {"rows": [_plain(arrays, contract, finite, answer) for answer in task.answer(rows)]}
        except Exception as error:
            reply = {"error": str(error), "kind": type(error).__name__}
        print(json.dumps(reply), file=answers_to, flush=True)


def _row(contract: Any, one: dict[str, Any]) -> Any:
    inputs = {}
    for name, value in one["inputs"].items():
        values = value if isinstance(value, list) else [value]
        inputs[name] = tuple(base64.b64decode(v["base64"]) if isinstance(v, dict) else v.encode() for v in values)
    parameters = contract.parse_json(json.dumps(one["parameters"]).encode())
    return contract.Row(inputs=inputs, parameters=parameters, is_cancelled=lambda: False)


def _plain(arrays: Any, contract: Any, finite: Any, answer: Any) -> dict[str, Any]:
    try:
        found = arrays.arrays_of([answer])
        finite.check_outputs(found)  # as model.py does
    except contract.BadInput as error:
        return {"error": str(error), "kind": type(error).__name__}
    return {name: _values(array[0].tolist()) for name, array in found.items()}


def _values(value: Any) -> Any:
    if isinstance(value, list):
        return [_values(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main(sys.argv[1])
