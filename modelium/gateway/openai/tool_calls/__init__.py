"""Tool calls in generated text: a family of models and its text enter, text and calls leave."""

from modelium.gateway.openai.tool_calls.families import FAMILIES, Choice, Family, choose_family
from modelium.gateway.openai.tool_calls.formats import Call
from modelium.gateway.openai.tool_calls.progress import CallStream, Part
from modelium.gateway.openai.tool_calls.scanner import Scanner

__all__ = ["FAMILIES", "Call", "CallStream", "Choice", "Family", "Part", "Scanner", "choose_family"]
