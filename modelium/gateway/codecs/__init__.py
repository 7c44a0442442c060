"""Codecs: the body of a request enters, a ``Call`` in Triton's terms leaves."""

from collections.abc import Mapping

from modelium.errors import InvalidBody
from modelium.gateway.codecs.answers import Heard, Raw, answer_of, heard_in
from modelium.gateway.codecs.body import Body, parse_body
from modelium.gateway.codecs.call import Call, Tensors
from modelium.gateway.codecs.inputs import rows_of
from modelium.gateway.codecs.parameters import check
from modelium.gateway.codecs.tables import encode_table
from modelium.gateway.codecs.tensors import encode_tensors
from modelium.values import ModelProfile, Task

__all__ = ["Body", "Call", "Heard", "Raw", "Tensors", "encode", "encode_body", "encode_texts", "heard_in", "parse_body"]

_ANSWERED_HERE = frozenset({"details"})  # parameters that shape the answer and mean nothing to the model


def encode(profile: ModelProfile, content_type: str, data: bytes) -> Call:
    """What ``data`` asks of ``profile``. Raises ``InvalidBody`` (it doesn't fit) or ``RequestError`` (broken JSON)."""
    return encode_body(profile, parse_body(profile.task, content_type, data))


def encode_body(profile: ModelProfile, body: Body) -> Call:
    """What ``body`` asks of ``profile``. Raises ``InvalidBody``."""
    task = profile.task
    if body.stream:
        raise InvalidBody("answers are not streamed here; leave it out", field="stream")
    parameters = check(task, body.parameters) | check(task, body.at_root, "")
    if profile.onnx is not None:
        return encode_tensors(profile.onnx, body.inputs)
    if task.row.is_table:
        return encode_table(profile, body.inputs, parameters)
    rows = rows_of(task, body)
    for_model = {name: value for name, value in parameters.items() if name not in _ANSWERED_HERE}
    return Call(inputs=rows.tensors(for_model), rows=rows.count, splits=True, answer=answer_of(task, rows, parameters))


def encode_texts(task: Task, texts: list[str], parameters: Mapping[str, object]) -> Call:
    """The call for texts that were read already, with ``parameters`` for each. Raises ``InvalidBody``."""
    rows = rows_of(task, Body(inputs=texts))
    checked = check(task, parameters, "")
    return Call(inputs=rows.tensors(checked), rows=rows.count, splits=True, answer=answer_of(task, rows, checked))
