"""Tiny models that see; transformers' pipelines and model code answer. Runs in the model runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from transformers import (
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
    pipeline,
)

from tests.models.common import Reference, case, fit, save

_COLOURS = {"red": (200, 30, 40), "green": (30, 180, 60), "blue": (40, 60, 210)}
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_dropout_prob": 0.0}


def _pictures(files: Path) -> dict[str, Path]:
    """A square of each colour on grey; PNG, JPEG and one with an alpha channel, in several sizes."""
    made = {}
    sizes = {"red": (64, 48), "green": (48, 64), "blue": (40, 40)}
    for name, colour in _COLOURS.items():
        picture = Image.new("RGB", sizes[name], (120, 120, 120))
        ImageDraw.Draw(picture).rectangle((8, 8, 36, 36), fill=colour)
        exif = Image.Exif()
        if name == "green":
            picture.putalpha(200)
        if name == "red":
            exif[0x0112] = 6  # a telephone that was held upright
        made[name] = files / f"{name}.{'jpg' if name == 'blue' else 'png'}"
        picture.save(made[name], exif=exif)
    return made


def _seen(path: Path) -> Image.Image:
    """As people see it: upright, on white. transformers drops the alpha channel, whatever lies under it."""
    layer = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _processor(side: int) -> Any:
    return ViTImageProcessor(size={"height": side, "width": side})


def make_vit(folder: Path, files: Path) -> Reference:
    """ViT that tells colours."""
    torch.manual_seed(21)
    config = ViTConfig(
        image_size=32, patch_size=8, intermediate_size=64, id2label=dict(enumerate(_COLOURS)),
        label2id={name: i for i, name in enumerate(_COLOURS)}, **_SMALL,
    )  # fmt: skip
    model, processor = ViTForImageClassification(config), _processor(32)
    noise = np.random.default_rng(3)

    def batch() -> dict[str, torch.Tensor]:
        labels = noise.integers(0, 3, size=24)
        shown = [np.array(list(_COLOURS.values())[label]) + noise.normal(0, 25, size=(32, 32, 3)) for label in labels]
        images = [Image.fromarray(one.clip(0, 255).astype(np.uint8)) for one in shown]
        return {**processor(images=images, return_tensors="pt"), "labels": torch.tensor(labels)}

    fit(model, batch, steps=25)
    save(folder, model, processor)
    ask = pipeline("image-classification", model=str(folder), device="cpu")
    pictures = _pictures(files)
    cases = [case({"IMAGE": {"file": path.name}}, ask(_seen(path))) for path in pictures.values()]
    cases.append(case({"IMAGE": {"file": pictures["red"].name}}, ask(_seen(pictures["red"]), top_k=1), top_k=1))
    return {"task": "image-classification", "cases": cases}


def make_yolos(folder: Path, files: Path) -> Reference:
    """YOLOS with random weights: its boxes mean nothing, but they are the same ones."""
    torch.manual_seed(22)
    config = YolosConfig(
        image_size=[64, 64], patch_size=16, num_detection_tokens=6, intermediate_size=64, initializer_range=0.4,
        id2label={0: "square", 1: "circle", 2: "cat"}, label2id={"square": 0, "circle": 1, "cat": 2}, **_SMALL,
    )  # fmt: skip
    processor = YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    model = YolosForObjectDetection(config)
    torch.nn.init.normal_(model.vit.embeddings.detection_tokens)
    save(folder, model, processor)
    ask = pipeline("object-detection", model=str(folder), device="cpu")
    cases = [
        case({"IMAGE": {"file": path.name}}, ask(_seen(path), threshold=threshold), threshold=threshold)
        for path in _pictures(files).values()
        for threshold in (0.05, 0.5, 0.999)
    ]
    return {"task": "object-detection", "cases": cases}


def make_dinov2(folder: Path, files: Path) -> Reference:
    """DINOv2: the class token after the last norm."""
    torch.manual_seed(23)
    model = Dinov2Model(Dinov2Config(image_size=32, patch_size=8, mlp_ratio=2, **_SMALL)).eval()
    save(folder, model, _processor(32))
    return _ask_features(folder, files, lambda output: output.pooler_output)


def make_vit_features(folder: Path, files: Path) -> Reference:
    """ViT saved without a pooler: the class token."""
    torch.manual_seed(24)
    config = ViTConfig(image_size=32, patch_size=8, intermediate_size=64, **_SMALL)
    save(folder, ViTModel(config, add_pooling_layer=False), _processor(32))
    return _ask_features(folder, files, lambda output: output.last_hidden_state[:, 0])


def _ask_features(folder: Path, files: Path, pooled: Any) -> Reference:
    from transformers import AutoImageProcessor, AutoModel

    model, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    cases = []
    for path in _pictures(files).values():
        with torch.inference_mode():
            output = model(**processor(images=_seen(path), return_tensors="pt"))
        cases.append(case({"IMAGE": {"file": path.name}}, pooled(output)[0].tolist()))
    return {"task": "image-feature-extraction", "cases": cases}
