"""diffusers: rows with PROMPT enter, images as PNG leave."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from modelium_tasks.contract import Answer, BadInput, Row, attempt, parse_parameters
from modelium_tasks.folder import readable_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Hugging Face's words; None: as the pipeline has it."""

    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    seed: int | None = None


def load(given: Mapping[str, str], device: str) -> TextToImage:
    """Load the pipeline: in float32 on a processor, else as its weights are."""
    from diffusers import DiffusionPipeline

    cpu = device == "cpu"
    dtype = torch.float32 if cpu else "auto"
    pipeline = DiffusionPipeline.from_pretrained(
        readable_path(given["model_path"]),
        torch_dtype=dtype,
        local_files_only=True,
        # None: each component as it lies there. Modelium asks for permission where one is a pickle.
        use_safetensors=None if given.get("weights") == "pickle" else True,
    )
    pipeline.set_progress_bar_config(disable=True)
    return TextToImage(pipeline.to(device), device)


class TextToImage:
    """One image a row, one row after the other: an image is work enough for a device."""

    def __init__(self, pipeline: Any, device: str) -> None:
        self._pipeline = pipeline
        self._device = device

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        for number, (prompt, parameters) in good.items():
            try:
                answers[number] = self._paint(prompt, parameters, rows[number])
            except (ValueError, TypeError) as error:  # what the pipeline says of sizes and steps
                answers[number] = BadInput(str(error).strip().splitlines()[0][:300])
        return answers

    def _read(self, row: Row) -> tuple[str, Parameters]:
        return row.text("PROMPT"), parse_parameters(Parameters, row.parameters)

    def _paint(self, prompt: str, parameters: Parameters, row: Row) -> Answer:
        import numpy as np

        names = ("negative_prompt", "height", "width", "num_inference_steps", "guidance_scale")
        given = {name: value for name in names if (value := getattr(parameters, name)) is not None}
        if parameters.seed is not None:
            given["generator"] = torch.Generator(self._device).manual_seed(parameters.seed)

        def stop_if_cancelled(pipeline: Any, _step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
            pipeline._interrupt = row.is_cancelled()
            return values

        image = self._pipeline(prompt, callback_on_step_end=stop_if_cancelled, **given).images[0]
        target = io.BytesIO()
        image.save(target, format="PNG")
        painted = np.empty(1, dtype=np.object_)
        painted[0] = target.getvalue()
        return {"IMAGE": painted}
