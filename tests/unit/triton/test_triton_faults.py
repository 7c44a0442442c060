"""Triton's words → our errors. The messages are those of a real 2.51, word for word."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelium.errors import (
    ContextExceeded,
    DeadlineExceeded,
    InferenceFailed,
    LoadFailed,
    MachineTrouble,
    ModelGone,
    NotFinite,
    OutOfMemory,
    ProcessLost,
    TritonError,
    TritonUnavailable,
)
from modelium.triton.faults import (
    call_error,
    find_poll_cause,
    infer_error,
    load_error,
    stream_error,
    unwrap_load_error,
)

BACKEND = "unable to find backend library for backend 'vllm', try specifying runtime on the model configuration."
WRAPPED = {
    "load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: RuntimeError: boom-init x\n\nAt:\n"
    "  /r/x/1/model.py(16): initialize\n;\n": "RuntimeError: boom-init x",
    f"load failed for model 'x': version 1 is at UNAVAILABLE state: Invalid argument: {BACKEND};\n": BACKEND,
    "load failed for model 'n': at least one version must be available under the version policy of model 'n'\n": (
        "at least one version must be available under the version policy of model 'n'"
    ),
    "failed to load 'x', failed to poll from model repository": "failed to poll from model repository",
    "load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: ValueError: a; b\nc;\n": "ValueError: a; b\nc",
    "load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: A: one;\nversion 2 is at UNAVAILABLE state: "
    "Internal: B: two;\n": "A: one",
    "": "",
    "something never seen": "something never seen",
}


def rpc_error(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


@pytest.mark.parametrize(("message", "cause"), WRAPPED.items())
def test_cause_is_unwrapped(message: str, cause: str) -> None:
    assert unwrap_load_error(message) == cause


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' is not found", ModelGone),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'x' has no available versions", ModelGone),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'x' has no available versions", ModelGone),
        (grpc.StatusCode.INTERNAL, "Stub process 'x_0_0' is not healthy.", ModelGone),
        (grpc.StatusCode.UNAVAILABLE, "Model is unavailable due to unhealthy vLLM engine", ModelGone),
        (grpc.StatusCode.INTERNAL, "ValueError: the label 'foo' is not found", InferenceFailed),
        (grpc.StatusCode.INVALID_ARGUMENT, "the adapter is not ready", InferenceFailed),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", TritonUnavailable),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", TritonUnavailable),
        (grpc.StatusCode.CANCELLED, "CANCELLED", TritonUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "[request id: <id_unknown>] inference input 'IN' data-type is 'INT64'",
            InferenceFailed,
        ),
        (grpc.StatusCode.INTERNAL, "the text is not for me", InferenceFailed),
        (grpc.StatusCode.UNKNOWN, "the model answered with NaN in SCORE", NotFinite),
    ],
)
def test_failed_inference(code: grpc.StatusCode, details: str, kind: type[Exception]) -> None:
    assert type(infer_error("x", rpc_error(code, details))) is kind


MODEL_SAYS = (
    "the context length of the evicted engine died: CUDA out of memory, maximum model length, longer than the maximum, "
    "Stub process 'x_0_0' was healthy, unknown model: none, server is stopping, not at ready state, restricted"
)


@pytest.mark.parametrize(
    "said", [MODEL_SAYS, f"ValueError: {MODEL_SAYS}", f"the text '[context_length_exceeded] {MODEL_SAYS}'"]
)
def test_words_of_a_model_decide_nothing(said: str) -> None:
    for error in (infer_error("x", rpc_error(grpc.StatusCode.INVALID_ARGUMENT, said)), stream_error("x", said)):
        assert (type(error), str(error)) == (InferenceFailed, said)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("[context_length_exceeded] TEXT is 9 tokens long", "TEXT is 9 tokens long"),
        (
            "Error generating stream: This model's maximum context length is 64 tokens. However, your prompt contains 70.",
            "This model's maximum context length is 64 tokens. However, your prompt contains 70.",
        ),
        *(
            (f"Error generating stream: {vllms}", vllms)
            for vllms in (
                "The decoder prompt (length 600) is longer than the maximum model length of 512. Make sure",
                "The decoder prompt (length 512) plus the number of requested output tokens (at least 1) is longer than the "
                "maximum model length of 512. Make sure",
            )
        ),
    ],
)
def test_a_prompt_beyond_the_context_is_told_from_other_faults(message: str, said: str) -> None:
    for error in (infer_error("x", rpc_error(grpc.StatusCode.INVALID_ARGUMENT, message)), stream_error("x", message)):
        assert (type(error), str(error)) == (ContextExceeded, said)


def test_traceback_of_a_model_is_not_shown_to_its_users() -> None:
    details = (
        "Failed to process the request(s) for model 'x_0_0', message: ValueError: no\n\nAt:\n  /r/x/1/model.py(3): execute\n"
    )
    assert str(infer_error("x", rpc_error(grpc.StatusCode.INTERNAL, details))) == "ValueError: no"


def test_failed_load(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "2026-11-22T17:13:33Z E 1 manager.cc:1460] \"Poll failed for model directory 'x': unexpected directory name"
        " 'x' for model 'y', directory name must equal model name\"\n"
    )
    poll = rpc_error(grpc.StatusCode.INTERNAL, "failed to load 'x', failed to poll from model repository")
    known, unknown = load_error("x", poll, log), load_error("x", poll, None)
    assert isinstance(known, LoadFailed)
    assert str(known) == "unexpected directory name 'x' for model 'y', directory name must equal model name"
    assert isinstance(unknown, LoadFailed) and "log" in str(unknown)
    assert isinstance(load_error("x", rpc_error(grpc.StatusCode.UNAVAILABLE, "Socket closed"), log), TritonUnavailable)
    assert isinstance(load_error("x", rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, ""), log), DeadlineExceeded)


def test_a_lost_process_is_told_from_what_the_model_says() -> None:
    words = "load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: {};\n"
    lost = rpc_error(grpc.StatusCode.INTERNAL, words.format("Stub process 'x_0_0' is not healthy."))
    assert type(load_error("x", lost, None)) is ProcessLost
    other = rpc_error(grpc.StatusCode.INTERNAL, words.format("boom: Stub process 'x_0_0' is not healthy."))
    assert type(load_error("x", other, None)) is LoadFailed


def test_last_poll_failure_of_the_very_model_counts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "E Poll failed for model directory 'x': old\nE Poll failed for model directory 'xx': other\n"
        "E failed to poll model 'x': model not found in any model repository.\nE Poll failed for model directory 'y': newer\n"
    )
    assert find_poll_cause(log, "x") == "model not found in any model repository."
    assert find_poll_cause(log, "z") is None
    assert find_poll_cause(tmp_path / "no-log", "x") is None


def test_other_calls() -> None:
    assert isinstance(call_error("index", rpc_error(grpc.StatusCode.UNAVAILABLE, "")), TritonUnavailable)
    assert isinstance(call_error("index", rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "")), TritonUnavailable)
    assert type(call_error("index", rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "no"))) is TritonError


@pytest.mark.parametrize(
    ("cause", "machines"),
    [
        ("OSError: [Errno 28] No space left on device", True),
        ("Failed to increase the shared memory pool size for key 'x' to 67108864 bytes. Error: No space left on device", True),
        ("RuntimeError: unable to mmap 90868376 bytes from file <model.safetensors>: Cannot allocate memory (12)", True),
        ("MemoryError: ", True),
        ("std::bad_alloc", True),
        ("RuntimeError: can't start new thread", True),
        ("OSError: [Errno 24] Too many open files: 'tokenizer.json'", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("RuntimeError: size mismatch for weight", False),
        ("PermissionError: [Errno 13] Permission denied: 'model.safetensors'", False),
        ("ValueError: 28 labels", False),
        ("safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata", False),
    ],
)
def test_the_machines_trouble_is_told_from_the_models(cause: str, machines: bool) -> None:
    details = f"load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: {cause};\n"
    error = load_error("x", rpc_error(grpc.StatusCode.INTERNAL, details), None)
    assert isinstance(error, LoadFailed)
    assert isinstance(error, MachineTrouble) == machines


@pytest.mark.parametrize(
    ("cause", "asked_bytes"),
    [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 139 GiB",
            5 << 29,
        ),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to "
            "allocate 1125899906842624 bytes. Error code 12 (Cannot allocate memory)",
            1 << 50,
        ),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8. PiB for an array with shape (1,)", 1 << 53),
        ("MemoryError: Unable to allocate 8.00 EiB for an array", 1 << 63),
        ("RuntimeError: unable to mmap 90868376 bytes from file <model.safetensors>: Cannot allocate memory (12)", 90868376),
        ("onnxruntime::BFCArena Failed to allocate memory for requested buffer of size 4096", 4096),
        ("MemoryError: ", 0),
        ("std::bad_alloc", 0),
        ("OSError: [Errno 12] Cannot allocate memory", 0),
    ],
)
def test_want_of_memory_says_how_much_was_asked(cause: str, asked_bytes: int) -> None:
    details = f"load failed for model 'x': version 1 is at UNAVAILABLE state: Internal: {cause};\n"
    error = load_error("x", rpc_error(grpc.StatusCode.INTERNAL, details), None)
    assert isinstance(error, OutOfMemory)
    assert error.asked_bytes == asked_bytes


@given(st.text())
def test_no_words_break_the_reader(cause: str) -> None:
    assert isinstance(load_error("x", rpc_error(grpc.StatusCode.INTERNAL, cause), None), LoadFailed)
