"""What an embedder's author wants before a text: sentence-transformers' prompts, by name, literally, or by default.

What enters: a model's folder and a request's parameters. What leaves: the words, "" for none.
"""

from __future__ import annotations

from dataclasses import dataclass

from .contract import BadInput, shown
from .loading import read_object


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptParameters:
    """``prompt`` wins over ``prompt_name``, as in sentence-transformers; an empty one is none where there is a default."""

    prompt_name: str | None = None
    prompt: str | None = None


class Prompts:
    """Those of ``config_sentence_transformers.json``."""

    def __init__(self, folder: str) -> None:
        own = read_object(folder, "config_sentence_transformers.json")
        prompts = own.get("prompts")
        self._prompts = {str(name): str(words or "") for name, words in prompts.items()} if isinstance(prompts, dict) else {}
        self._default = str(own.get("default_prompt_name") or "")
        if self._default and self._default not in self._prompts:
            raise RuntimeError(
                f"config_sentence_transformers.json: default_prompt_name is {shown(self._default)!r}, which is none of its "
                f"prompts ({', '.join(sorted(self._prompts)) or 'it has none'})"
            )

    def choose(self, parameters: PromptParameters) -> str:
        """Raises ``BadInput`` for a name that the folder has not."""
        if parameters.prompt is not None:
            return parameters.prompt
        name = parameters.prompt_name or self._default
        if name and name not in self._prompts:
            known = f"this model has {', '.join(sorted(self._prompts))}" if self._prompts else "this model has no prompts"
            raise BadInput(f"parameter 'prompt_name': no prompt {shown(name)!r}; {known}")
        return self._prompts[name] if name else ""
