"""Modelium: drop a Hugging Face folder, call it. Maximum GPU utilization with minimum user effort."""

__version__ = "0.1.0"
