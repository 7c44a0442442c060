"""The words between the generated pieces and OpenAI's JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from modelium.gateway.generation import TokenLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDelta:
    """A part of a tool call: the first part of each has ``id`` and ``name``."""

    index: int
    arguments: str
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one piece adds to a choice."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls or self.finish_reason)


@dataclass(slots=True)
class Usage:
    """Tokens of a whole request. A prompt that is answered n times counts once."""

    prompts: dict[int, int] = field(default_factory=dict)
    completion_tokens: int = 0
    reasoning_tokens: int | None = None  # None: the model does not think
    cached: dict[int, int] = field(default_factory=dict)  # of each prompt, where somebody said

    def json(self) -> dict[str, object]:
        """In OpenAI's words."""
        prompt_tokens = sum(self.prompts.values())
        said: dict[str, object] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt_tokens + self.completion_tokens,
        }
        if self.cached:
            said["prompt_tokens_details"] = {"cached_tokens": sum(self.cached.values())}
        if self.reasoning_tokens is not None:
            said["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        return said
