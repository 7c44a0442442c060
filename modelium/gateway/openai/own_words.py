"""Words that only Modelium's own vLLM backend has: prompts as numbers, beams, what stopped a text. A placement enters,
whether what serves there knows them leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelium.gateway.openai.errors import BadRequest
from modelium.gateway.openai.requests import Generating
from modelium.values import Placement

if TYPE_CHECKING:
    from modelium.controller import Lease


def has_own_words(placement: Placement, *, own_vllm: bool) -> bool:
    """``own_vllm``: the server's vLLM backend is Modelium's. Behind Ray it always is."""
    return placement.by_vllm and (own_vllm or placement.by_ray)


def require_beams(asked: Generating, lease: Lease, *, own_words: bool) -> None:
    """Raises ``BadRequest`` where beams are asked for and there are none."""
    if asked.use_beam_search and not own_words:
        name = lease.profile.name
        raise BadRequest(
            f"use_beam_search: what serves {name!r} searches no beams; Modelium's own vLLM backend does",
            param="use_beam_search",
            code="unsupported_parameter",
        )
