"""What a body asks of a model: a profile, a placement where there is one, and bytes enter, a ``Question`` leaves. Pure.

Which runtime serves a model is known for certain only once it is loaded. So a body is read before that against whatever may
come, and again when something else came.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from modelium.errors import InvalidBody
from modelium.gateway.codecs import Call, encode_body, parse_body
from modelium.gateway.generation.huggingface import TextCall, options_for, text_call
from modelium.values import ModelProfile, Placement


@dataclass(frozen=True, slots=True)
class Application:
    """It is an application of the user's, which is asked in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``text`` where the model continues texts; ``call`` unless vLLM may be who answers, or the answer is streamed."""

    profile: ModelProfile
    text: TextCall | None = None
    call: Call | None = None

    @property
    def at_any_rate(self) -> Application | TextCall | None:
        """What to ask whichever runtime serves the model; None where that depends on it."""
        if self.profile.app is not None:
            return Application()
        return self.text if self.text is not None and self.text.stream else None

    def at(self, placement: Placement) -> Application | TextCall | Call:
        """What to ask of the model as it is placed now."""
        if (asked := self.at_any_rate) is not None:
            return asked
        if self.text is not None and placement.by_vllm:
            return self.text
        assert self.call is not None, "read for another placement"
        return self.call

    def fits(self, profile: ModelProfile, placement: Placement) -> bool:
        """False where the body has to be read again: another revision arrived, or another runtime serves than was expected."""
        return profile == self.profile and (self.call is not None or placement.by_vllm)


def read_question(
    profile: ModelProfile, placement: Placement | None, content_type: str, data: bytes, *, stream: bool | None = None
) -> Question:
    """``stream``: what the path says, whatever the body does. Raises ``InvalidBody`` (422) or ``RequestError`` (400, broken
    JSON)."""
    if profile.app is not None:
        return Question(profile=profile)
    body = parse_body(profile.task, content_type, data)
    if stream is not None:
        body = replace(body, stream=stream)
    text = text_call(body) if profile.task.row.continues else None
    if text is not None and (text.stream or _is_for_vllm(text, placement)):
        return Question(profile=profile, text=text)
    return Question(profile=profile, text=text, call=encode_body(profile, body))


def _is_for_vllm(text: TextCall, placement: Placement | None) -> bool:
    """Where nobody knows who will serve, what vLLM refuses may be right for the python runtime."""
    if placement is not None and not placement.by_vllm:
        return False
    try:
        options_for(text)
    except InvalidBody:
        if placement is not None:
            raise
        return False
    return True
