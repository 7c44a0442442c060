"""One inference before the first request: what is paid once (thread pools, kernels chosen by shape) is paid by the load.

What enters: a loaded task and the names of its inputs. What leaves: nothing but a line in the log when it went wrong: made-up
input proves nothing about real input, so it never fails a load.
"""

from __future__ import annotations

import io
import struct
import wave

import torch

from .contract import Row, TaskModel

_SECONDS, _RATE = 1, 16_000


def rehearse(task: TaskModel, inputs: list[str], parameters: dict[str, object]) -> str | None:
    """Answer one made-up row; returns what went wrong, if anything did."""
    row = Row(inputs={name: _sample(name) for name in inputs}, parameters=parameters, is_cancelled=lambda: False)
    try:
        with torch.inference_mode():
            task.answer([row])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _sample(name: str) -> tuple[bytes, ...]:
    match name:
        case "IMAGE":
            return (_picture(),)
        case "AUDIO":
            return (_silence(),)
        case "CANDIDATE_LABELS":
            return (b"one", b"other")
    return (b"The first [MASK] of many <mask>.",)  # the masks of BERT and of RoBERTa; to other tasks they are words


def _picture() -> bytes:
    from PIL import Image

    target = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 130, 140)).save(target, format="PNG")
    return target.getvalue()


def _silence() -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(struct.pack("<h", 0) * _RATE * _SECONDS)
    return target.getvalue()
