"""What has to happen in the process that computes on the processor, whoever started it: vLLM imports this there, as an
extension of its worker, before anything is computed.

Linux grants the registers of AMX by process, to whoever asks, and ends one that did not by SIGILL. Some of vLLM's and oneDNN's
kernels use them without having asked (vLLM 0.32, torch 2.13: every engine in bfloat16 ended at its first token).
"""

from __future__ import annotations

import contextlib

import torch

with contextlib.suppress(AttributeError):  # not torch's public word
    torch.cpu._init_amx()


class OnProcessor:
    """Adds nothing to the worker."""
