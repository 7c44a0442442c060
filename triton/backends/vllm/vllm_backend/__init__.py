"""Triton's vLLM backend for a server that comes without it; ``model.py`` beside this package is what Triton calls."""
