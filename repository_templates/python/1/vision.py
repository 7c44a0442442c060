"""Images: classification, detection, features.

What enters: rows with IMAGE (an encoded picture). What leaves: LABEL and SCORE, boxes, or EMBEDDING.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from .batching import run_same_shapes
from .contract import Answer, BadInput, Row, Settings, as_bytes, attempt, floats, ints, parse_parameters
from .finite import finite
from .loading import load_model, load_processor, move
from .pictures import read_image
from .scores import ClassifyParameters, check, rank

Inputs = dict[str, torch.Tensor]
_ROWS_PER_BATCH = 32


class _Eyes:
    """A vision model with the processor of its folder."""

    def __init__(self, settings: Settings, auto_class: str) -> None:
        self.model = load_model(settings, auto_class)
        self.processor = load_processor(settings, "AutoImageProcessor")

    def look(self, picture: Image.Image) -> Inputs:
        return dict(self.processor(images=picture, return_tensors="pt"))


class ImageClassification:
    """A picture → its labels."""

    def __init__(self, settings: Settings) -> None:
        self._eyes = _Eyes(settings, "AutoModelForImageClassification")

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        logits = run_same_shapes([inputs for inputs, _ in good.values()], _ROWS_PER_BATCH, self._forward)
        for (index, (_, parameters)), one in zip(good.items(), logits, strict=True):
            answers[index] = rank(one.numpy(), self._eyes.model.config, parameters, default_top_k=5)
        return answers

    def _read(self, row: Row) -> tuple[Inputs, ClassifyParameters]:
        parameters = check(parse_parameters(ClassifyParameters, row.parameters))
        return self._eyes.look(read_image(row.data("IMAGE"))), parameters

    def _forward(self, batch: Inputs) -> torch.Tensor:
        return self._eyes.model(**move(batch, self._eyes.model)).logits.float().cpu()


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectParameters:
    threshold: float = 0.5


class ObjectDetection:
    """Things in a picture, with boxes in its own pixels."""

    def __init__(self, settings: Settings) -> None:
        self._eyes = _Eyes(settings, "AutoModelForObjectDetection")

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        outputs = run_same_shapes([inputs for inputs, _, _ in good.values()], _ROWS_PER_BATCH, self._forward)
        for (index, (_, size, parameters)), output in zip(good.items(), outputs, strict=True):
            finite(output.logits.numpy()), finite(output.pred_boxes.numpy())
            found = self._eyes.processor.post_process_object_detection(output, parameters.threshold, torch.tensor([size]))[0]
            labels = [str(self._eyes.model.config.id2label[int(label)]) for label in found["labels"]]
            answers[index] = {
                "LABEL": as_bytes(labels),
                "SCORE": floats(found["scores"].tolist()),
                "BOX": found["boxes"].int().numpy().astype(np.int32).reshape(-1, 4),
                "COUNT": ints([len(labels)]),
            }
        return answers

    def _read(self, row: Row) -> tuple[Inputs, tuple[int, int], DetectParameters]:
        parameters = parse_parameters(DetectParameters, row.parameters)
        picture = read_image(row.data("IMAGE"))
        return self._eyes.look(picture), (picture.height, picture.width), parameters

    def _forward(self, batch: Inputs) -> list[Any]:
        """One output a row: the processor that reads it wants logits and boxes as attributes, with a batch dimension."""
        output = self._eyes.model(**move(batch, self._eyes.model))
        logits, boxes = output.logits.float().cpu(), output.pred_boxes.float().cpu()
        return [_Detections(logits=logits[i : i + 1], pred_boxes=boxes[i : i + 1]) for i in range(len(logits))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Detections:
    logits: torch.Tensor
    pred_boxes: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureParameters:
    normalize: bool | None = None


class ImageFeatures:
    """A picture → one vector: the model's pooled output, else its first (class) token, else the mean."""

    def __init__(self, settings: Settings) -> None:
        self._eyes = _Eyes(settings, "AutoModel")
        self._normalize = settings.normalize
        # A checkpoint without the pooler's weights has a random pooler: its output means nothing.
        self._pooler = not any("pooler" in name for name in self._eyes.model.modelium_missing)

    def answer(self, rows: Sequence[Row]) -> list[Answer | BadInput]:
        answers, good = attempt(rows, self._read)
        vectors = run_same_shapes([inputs for inputs, _ in good.values()], _ROWS_PER_BATCH, self._forward)
        for (index, (_, normalize)), vector in zip(good.items(), vectors, strict=True):
            answers[index] = {"EMBEDDING": (torch.nn.functional.normalize(vector, dim=0) if normalize else vector).numpy()}
        return answers

    def _read(self, row: Row) -> tuple[Inputs, bool]:
        parameters = parse_parameters(FeatureParameters, row.parameters)
        normalize = self._normalize if parameters.normalize is None else parameters.normalize
        return self._eyes.look(read_image(row.data("IMAGE"))), normalize

    def _forward(self, batch: Inputs) -> torch.Tensor:
        inputs = move(batch, self._eyes.model)
        if hasattr(self._eyes.model, "get_image_features"):  # CLIP, SigLIP: the picture's half of a pair of towers
            output = self._eyes.model.get_image_features(**inputs)
            vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
        else:
            output = self._eyes.model(**inputs)
            pooled = getattr(output, "pooler_output", None) if self._pooler else None
            hidden = output.last_hidden_state
            if pooled is not None:
                vectors = pooled.flatten(1)
            elif hidden.ndim == 4:  # a convolutional network: channels × height × width
                vectors = hidden.mean(dim=(2, 3))
            else:
                vectors = hidden[:, 0] if hasattr(self._eyes.model.config, "qkv_bias") else hidden.mean(dim=1)
        return vectors.float().cpu()
