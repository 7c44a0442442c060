"""A Stable Diffusion of a few thousand parameters, which paints noise; diffusers answers. Runs in the model runtime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.models.common import Reference, case, wordpiece

_ASKED = {"num_inference_steps": 2, "seed": 7, "height": 64, "width": 64, "guidance_scale": 2.0}


def make_painter(folder: Path, files: Path) -> Reference:
    """Every component as ``save_pretrained`` writes it."""
    torch.manual_seed(0)
    tokenizer = wordpiece(["a red house", "a blue cat"], length=16)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=16,
        )
    )
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=32,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
    )
    decoder = AutoencoderKL(
        block_out_channels=[32, 64],
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D", "DownEncoderBlock2D"],
        up_block_types=["UpDecoderBlock2D", "UpDecoderBlock2D"],
        latent_channels=4,
    )
    pipeline = StableDiffusionPipeline(
        vae=decoder,
        text_encoder=text.eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    given = {name: value for name, value in _ASKED.items() if name != "seed"}
    made = pipeline("a red house", generator=torch.Generator("cpu").manual_seed(_ASKED["seed"]), **given).images[0]
    digest = hashlib.sha256(np.asarray(made).tobytes()).hexdigest()
    return {
        "task": "text-to-image",
        "cases": [case({"PROMPT": "a red house"}, {"size": list(made.size), "sha256": digest}, **_ASKED)],
    }
