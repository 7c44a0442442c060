"""Generating text: what enters is a prompt with sampling parameters in vLLM's words, what leaves are pieces of text as they
come, whichever runtime makes them.
"""

from modelium.gateway.generation.generator import Generator
from modelium.gateway.generation.sse import EventStream
from modelium.gateway.generation.values import GenerationRequest, Piece, TokenLogprob

__all__ = ["EventStream", "GenerationRequest", "Generator", "Piece", "TokenLogprob"]
