"""Generating text: what enters is a prompt with sampling parameters in vLLM's words, what leaves are tensors for whichever
runtime continues it; the tensors of its answer enter, pieces of text leave.
"""

from modelium.gateway.generation.values import GenerationRequest, Piece, PromptRead, TokenLogprob

__all__ = ["GenerationRequest", "Piece", "PromptRead", "TokenLogprob"]
