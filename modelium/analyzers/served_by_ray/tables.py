"""Files of models of rows and columns: what their headers (and XGBoost's and LightGBM's ends) say of them.

What enters: a file. What leaves: ``TableFacts``, or ``NotYet`` where the end is missing. skops: https://skops.readthedocs.io
(a zip with schema.json). XGBoost: JSON or UBJSON, https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html;
both end with the objective and the version, after the trees. LightGBM: its text format, which ends with ``pandas_categorical``.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from modelium.analyzers.folder import File, refuse_lfs_pointer
from modelium.analyzers.formats.json_text import refuse_crowded
from modelium.analyzers.verdict import Rejected, not_whole

_EDGE = 256 * 1024  # of a file, at its beginning or end: the trees lie between
_MAX_SCHEMA_BYTES = 64 * 2**20
_AGAIN = "save the model again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """``classifies`` is None where the file does not say."""

    estimator: str
    classifies: bool | None
    features: int | None = None
    columns: tuple[str, ...] = ()


def read_skops(file: File) -> TableFacts:
    """skops' schema of an estimator: a tree of nodes, each with ``__class__`` and ``content``."""
    try:
        with zipfile.ZipFile(file.path) as archive:
            info = archive.getinfo("schema.json")
            if info.file_size > _MAX_SCHEMA_BYTES:
                raise Rejected(f"{file.name}: its schema.json is too large", _AGAIN)
            data = archive.read(info)
        refuse_crowded(data, f"{file.name}: its schema.json")
        schema = json.loads(data)
    except KeyError:
        raise Rejected(f"{file.name} is a zip but not skops' (no schema.json)", _AGAIN) from None
    except zipfile.BadZipFile:
        refuse_lfs_pointer(file, _head(file))
        raise not_whole(file.name, file.size) from None  # the zip's directory comes last
    except (ValueError, NotImplementedError, RecursionError) as error:
        raise Rejected(f"{file.name}: its schema.json cannot be read: {str(error)[:100]}", _AGAIN) from None
    last = _last_step(schema)
    count = next((_number(node) for node in _attributes(schema, "n_features_in_")), None)
    return TableFacts(
        estimator=_class_of(schema) if last is schema else f"{_class_of(schema)} of {_class_of(last)}",
        classifies=any(True for _ in _attributes(last, "classes_")),
        features=count,
    )


def read_xgboost(file: File) -> TableFacts | None:
    """None for JSON or UBJSON of somebody else."""
    binary = file.name.endswith(".ubj")
    head, tail = _head(file), _tail(file)
    refuse_lfs_pointer(file, head)
    if b"learner" not in head[:4096]:
        return None
    if not tail.rstrip().endswith(b"}") or b"objective" not in tail or b"version" not in tail[-4096:]:
        raise not_whole(file.name, file.size, detail="cut short so far")
    value = _ubjson_text if binary else _json_text
    after = tail[tail.rindex(b"objective") :]
    parameters = tail[tail.rindex(b"learner_model_param") :] if b"learner_model_param" in tail else b""
    objective = value(after, "name") or "?"
    features = value(parameters, "num_feature")
    return TableFacts(
        estimator=objective,
        classifies=objective.startswith(("binary:", "multi:")),
        features=int(features) if features and features.isdigit() and features != "0" else None,
    )


def read_lightgbm(file: File) -> TableFacts | None:
    """None for a text of somebody else."""
    head = _head(file)
    refuse_lfs_pointer(file, head)
    if not head.startswith(b"tree\n") or b"\nversion=" not in head[:64]:
        return None
    if b"pandas_categorical:" not in _tail(file):
        raise not_whole(file.name, file.size, detail="cut short so far")
    lines = dict(line.partition("=")[::2] for line in head.decode("utf-8", "replace").split("\nTree=")[0].splitlines())
    objective = lines.get("objective", "?").split(" ")[0]
    columns = tuple(lines.get("feature_names", "").split())
    made_up = all(column == f"Column_{place}" for place, column in enumerate(columns))
    return TableFacts(
        estimator=objective,
        classifies=objective in ("binary", "multiclass", "multiclassova"),
        features=len(columns) or None,
        columns=() if made_up else columns,
    )


def read_joblib(file: File) -> TableFacts:
    """A pickle is a program; it is searched for two words and not run. A compressed one says nothing."""
    head = _head(file)
    refuse_lfs_pointer(file, head)
    readable = head.startswith(b"\x80")
    found = re.search(rb"\x8c.sklearn[\w.]*\x94\x8c.(\w+)\x94", head)
    estimator = found[1].decode() if found else "a Python pickle"
    return TableFacts(estimator=estimator, classifies=(b"classes_" in _whole(file)) if readable and found else None)


def _head(file: File) -> bytes:
    with file.open() as stream:
        return stream.read(_EDGE)


def _tail(file: File) -> bytes:
    with file.open() as stream:
        stream.seek(max(0, file.size - _EDGE))
        return stream.read(_EDGE)


def _whole(file: File) -> bytes:
    with file.open() as stream:
        return stream.read(_MAX_SCHEMA_BYTES)


def _json_text(data: bytes, key: str) -> str:
    found = re.search(rb'"' + key.encode() + rb'"\s*:\s*"([^"]*)"', data)
    return found[1].decode("utf-8", "replace") if found else ""


def _ubjson_text(data: bytes, key: str) -> str:
    """A key, then ``S`` and ``L``, eight bytes of length, and as many of text (XGBoost writes no other lengths)."""
    place = data.find(key.encode() + b"SL")
    if place < 0:
        return ""
    start = place + len(key) + 2
    length = int.from_bytes(data[start : start + 8], "big")
    return data[start + 8 : start + 8 + length].decode("utf-8", "replace") if length < 4096 else ""


def _class_of(node: object) -> str:
    return str(node.get("__class__", "?")) if isinstance(node, dict) else "?"


def _content(node: object) -> object:
    return node.get("content") if isinstance(node, dict) else None


def _state(node: object) -> dict[str, object]:
    """The attributes of an object node: its content is the node of a dict."""
    content = _content(node)
    state = _content(content) if isinstance(content, dict) and "__class__" in content else content
    return state if isinstance(state, dict) else {}


def _last_step(schema: object) -> object:
    """The final estimator of a Pipeline (of a Pipeline …), or what a search found best; else the object itself."""
    for _ in range(8):
        state = _state(schema)
        steps = _content(state.get("steps"))
        if isinstance(steps, list) and steps:
            pair = _content(steps[-1])
            schema = pair[-1] if isinstance(pair, list) and pair else schema
        elif "best_estimator_" in state:
            schema = state["best_estimator_"]
        else:
            break
    return schema


def _attributes(node: object, name: str) -> Iterator[object]:
    """Every attribute of that name, of the object and of what it is made of."""
    pending = [node]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            if name in each:
                yield each[name]
            pending += each.values()
        elif isinstance(each, list):
            pending += each


def _number(node: object) -> int | None:
    content = _content(node)
    return int(content) if isinstance(content, str | int) and str(content).isdigit() else None
