"""A ``config.json`` → what a generator of text is (``LanguageModel``): layers, caches, experts, lengths, numbers.

What enters: parsed JSON and the exact sizes from the weights' headers. What leaves: facts, or None. No file is read here but
transformers' own configuration classes, as text.
"""

from __future__ import annotations

from modelium.analyzers.language.read import read_language_model
from modelium.analyzers.language.storing import read_storing, with_quantization

__all__ = ["read_language_model", "read_storing", "with_quantization"]
