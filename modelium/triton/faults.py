"""What Triton says when something goes wrong → one of our errors with the sentence that matters.

What enters: gRPC status codes and messages (measured on 2.51, see the tests), and the server's log for the one cause that
Triton tells nobody. What leaves: ``TritonError``s.
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import grpc

from modelium.errors import (
    ContextExceeded,
    DeadlineExceeded,
    InferenceFailed,
    LoadFailed,
    MachineTrouble,
    ModelGone,
    ModeliumError,
    NotExecuted,
    NotFinite,
    OutOfMemory,
    ProcessLost,
    TritonError,
    TritonUnavailable,
)

POLL_FAILED = "failed to poll from model repository"

# Triton's own words only: what a model says of its input may sound alike ("the label 'x' is not found").
_GONE = re.compile(
    r"^Request for unknown model: |^requested model '[^']*' is not available|^'[^']*' version \d+ is not at ready state"
    r"|(?:^|message: )Stub process '[^']*' is not healthy|^Model is unavailable due to unhealthy vLLM engine"
    r"|^Server is stopping"
)
_STUB_LOST = re.compile(r"Stub process '[^']*' is not healthy\.")
# Said before anything is executed: by Triton's front end, or by gRPC, which did not even connect.
_NOT_FOUND = "Request for unknown model: "
_NOT_BEGUN = re.compile(
    r"^requested model '[^']*' is not available|^'[^']*' version \d+ is not at ready state|^Server is stopping"
    r"|^failed to connect to all addresses"
)
_NO_VERSION = re.compile(r"'[^']*' version \d+ is not found")  # what it has was asked for in vain: its sender's own fault
# In a stream only: vLLM's own word for a dead engine as the stock backend passes it on, and its word for what an unload ended.
_STREAM_GONE = re.compile(r"^Error generating stream: EngineCore encountered an issue|^Request was cancelled$")
# Our own backends mark it (``TooLong``), the stock vLLM backend passes on vLLM's own words.
_TOO_LONG_MARK = "[context_length_exceeded] "
_TOO_LONG = re.compile(
    r"This model's maximum context length is \d+ tokens\. "
    r"|The (?:encoder|decoder) prompt \(length \d+\) (?:plus the number of requested output tokens \(at least 1\) )?"
    r"is longer than the maximum model length of \d+\. "
)
# The C library's words for its error numbers (through Triton, Python and C++), and the languages' own for want of memory.
_SCARCE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.EAGAIN)
_MACHINES = re.compile(
    rf"\[Errno (?:{'|'.join(map(str, _SCARCE))})\]|{'|'.join(re.escape(os.strerror(number)) for number in _SCARCE)}"
    r"|can't start new thread"
)
_MEMORY = re.compile(
    rf"\[Errno {errno.ENOMEM}\]|{re.escape(os.strerror(errno.ENOMEM))}"
    r"|^(?:[\w.]+\.)?_?(?:Array)?MemoryError\b|\bstd::bad_alloc\b|can't allocate memory|\b(?:CUDA|HIP|XPU) out of memory\b"
    r"|\bFailed to allocate memory for requested buffer\b"
)
# torch on the host and on devices, numpy, mmap, onnxruntime: how much was wanted at once.
_ASKED = re.compile(
    r"(?:[Tt]ried to allocate|Unable to allocate|unable to mmap|requested buffer of size) "
    r"(?P<number>\d{1,30}(?:\.\d{0,9})?)(?: ?(?P<unit>bytes|B|[KMGTPE]iB)\b)?"
)
_UNITS = {"": 1, "bytes": 1, "B": 1} | {f"{letter}iB": 1024 ** (power + 1) for power, letter in enumerate("KMGTPE")}
_REFUSED = re.compile(r"not allowed|restricted")
_STATE = re.compile(r"version \d+ is at \w+ state: (?P<cause>.*?)(?=;\s*(?:version \d+ is at|$)|$)", re.DOTALL)
_CODE = re.compile(r"^(?:Internal|Invalid argument|Unavailable|Unsupported|Not found|Unknown|Already exists|Cancelled): ")


def unwrap_load_error(message: str) -> str:
    """The cause inside Triton's wrapping.

    >>> unwrap_load_error("load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: RuntimeError: boom\\n\\nAt:\\n  m.py(1)\\n;\\n")
    'RuntimeError: boom'
    """  # noqa: E501 — Triton's own words, on one line
    match = _STATE.search(message)
    cause = match["cause"] if match else re.sub(r"^(?:load failed for model|failed to load) '[^']*'[:,] ", "", message)
    cause = _CODE.sub("", cause.strip())
    cause = cause.split("\n\nAt:\n", 1)[0]  # the Python traceback that pybind11 appends
    return cause.strip().rstrip(";").strip() or message.strip()


def load_error(name: str, error: grpc.RpcError, log_path: Path | None) -> ModeliumError:
    """What a failed ``RepositoryModelLoad`` means."""
    code, details = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"Triton did not finish loading {name!r} in time")
        case grpc.StatusCode.UNAVAILABLE if _REFUSED.search(details):
            return LoadFailed(_refused(details))
        case grpc.StatusCode.UNAVAILABLE if "load failed" not in details:
            return _unavailable(details)
        case grpc.StatusCode.CANCELLED if "load failed" not in details:
            return _unavailable(details)
    cause = unwrap_load_error(details)
    if _STUB_LOST.fullmatch(cause):
        return ProcessLost(cause)
    if POLL_FAILED in cause:
        found = find_poll_cause(log_path, name) if log_path is not None else None
        cause = found or f"{cause}; the cause is only in Triton's log, look there for {name!r}"
    return load_failure(cause)


def load_failure(cause: str) -> LoadFailed:
    """Whose fault a failed load was: perhaps for want of something of the machine. Foreign words, all we are given.

    >>> type(load_failure("OSError: [Errno 28] No space left on device")).__name__
    'MachineTrouble'
    >>> load_failure("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB.").asked_bytes
    2684354560
    """
    if _MEMORY.search(cause):
        asked = _ASKED.search(cause)
        return OutOfMemory(cause, int(float(asked["number"]) * _UNITS[asked["unit"] or ""]) if asked is not None else 0)
    return MachineTrouble(cause) if _MACHINES.search(cause) else LoadFailed(cause)


def infer_error(name: str, error: grpc.RpcError) -> ModeliumError:
    """What a failed ``ModelInfer`` means for the request that caused it."""
    code, details = error.code(), error.details() or ""
    match code:
        case grpc.StatusCode.NOT_FOUND:
            return ModelGone(f"Triton does not serve {name!r} now: {details}")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded(f"{name!r} did not answer in time")
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "message" in details.lower():
            return InferenceFailed(f"{name!r}: the message is too large for gRPC: {details}")
    if _GONE.search(details):
        return ModelGone(f"Triton does not serve {name!r} now: {details}")
    if code is grpc.StatusCode.UNKNOWN:  # the python runtime's for this (repository_templates/python/1/model.py)
        return NotFinite(f"{name!r}: {unwrap_model_error(details)}")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return _unavailable(details)
    return _failed(details)


def never_executed(name: str, message: str) -> bool:
    """Whether a request for ``name`` that failed with ``message`` was certainly not executed: to send it again does no harm.

    A process that died may have executed it, and so may a connection's other end. What a model says of another that it asked
    is nothing about itself.

    >>> never_executed("x", "Request for unknown model: 'x' has no available versions")
    True
    >>> never_executed("x", "Request for unknown model: 'y' is not found")
    False
    >>> never_executed("x", "Request for unknown model: 'x' version 9 is not found")
    False
    >>> never_executed("x", "Stub process 'x' is not healthy.")
    False
    """
    if message.startswith(_NOT_FOUND):
        said = message.removeprefix(_NOT_FOUND)
        return said.startswith(f"'{name}' ") and _NO_VERSION.fullmatch(said) is None
    return _NOT_BEGUN.match(message) is not None


def http_fault(name: str, status: int, body: bytes) -> ModelGone | None:
    """What an error over HTTP (``{"error": …}``) says of the model: ``NotExecuted`` where the request never came to it,
    ``ModelGone`` where its process is dead. None for what the request itself is to blame for."""
    try:
        said = json.loads(body)
        message = said["error"] if isinstance(said, dict) else None
    except (ValueError, LookupError):
        return None
    if not isinstance(message, str):
        return None
    words = f"Triton does not serve {name!r} now: {message}"
    if (status in (404, 503) or (status == 400 and message.startswith("requested model"))) and never_executed(name, message):
        return NotExecuted(words)
    return ModelGone(words) if status >= 500 and _GONE.search(message) else None


def stream_error(name: str, message: str) -> ModeliumError:
    """What an error in the middle of a stream means: there, Triton passes on the words and drops the code."""
    if _GONE.search(message) or _STREAM_GONE.search(message):
        return ModelGone(f"Triton does not serve {name!r} now: {message}")
    return _failed(message)


def call_error(what: str, error: grpc.RpcError) -> ModeliumError:
    """What any other failed call means."""
    details = error.details() or ""
    match error.code():
        case grpc.StatusCode.UNAVAILABLE if _REFUSED.search(details):
            return TritonError(_refused(details))
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return _unavailable(details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return TritonUnavailable(f"Triton did not answer ({what}) in time")
        case _:
            return TritonError(f"{what}: {details}")


def unwrap_model_error(message: str) -> str:
    """The message of an exception in ``execute``, without pybind11's traceback and Triton's preamble."""
    text = re.sub(r"^Failed to process the request\(s\) for model(?: instance)? '[^']*', message: ", "", message)
    text = re.sub(r"^in ensemble '[^']*', ", "", text)
    text = text.removeprefix("Error generating stream: ")  # the stock vLLM backend's
    return text.split("\n\nAt:\n", 1)[0].strip() or message.strip()


def find_poll_cause(log_path: Path, name: str) -> str | None:
    """Why Triton could not even read the entry ``name``: the last word about it at the end of the server's log.

    Triton answers "failed to poll from model repository" to the caller and writes the true cause to its log only.
    """
    text = _end_of(log_path)
    quoted = re.escape(name)
    pattern = re.compile(rf"Poll failed for model directory '{quoted}': (.+)|failed to poll model '{quoted}': (.+)")
    found = [match[1] or match[2] for match in pattern.finditer(text)]
    return found[-1].strip().strip('"') if found else None


def _end_of(log_path: Path, *, tail_bytes: int = 65_536) -> str:
    try:
        with log_path.open("rb") as log:
            log.seek(0, 2)
            log.seek(max(0, log.tell() - tail_bytes))
            return log.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _failed(message: str) -> InferenceFailed:
    said = unwrap_model_error(message)
    if said.startswith(_TOO_LONG_MARK):
        return ContextExceeded(said.removeprefix(_TOO_LONG_MARK))
    return ContextExceeded(said) if _TOO_LONG.match(said) else InferenceFailed(said)


def _refused(details: str) -> str:
    """Triton's own words say which of the two it is, and the name of the header that it expects."""
    return (
        f"Triton refuses ({details}): it has to run with --model-control-mode=explicit, and where its APIs are restricted "
        "`triton.headers` has to name the header and its value"
    )


def _unavailable(details: str) -> TritonUnavailable:
    return TritonUnavailable(f"Triton cannot be reached: {details}" if details else "Triton cannot be reached")
