"""Beam search above an engine that samples: sequences enter, the best continuations leave. As vLLM's own server does it.

What enters: who tells the likeliest next tokens of sequences, how many beams, how many tokens. What leaves: the beams, best
first. Nothing here imports vLLM.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of each sequence (its new tokens): token id → what is known of it, with a ``logprob``.
NextTokens = Callable[[Sequence[tuple[int, ...]]], Awaitable[Sequence[Mapping[int, Any]]]]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """``width``: how many beams are followed, and returned."""

    width: int
    length_penalty: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Beam:
    """A continuation. ``positions``: of each of its tokens what was likely there, the token itself first."""

    tokens: tuple[int, ...] = ()
    positions: tuple[Mapping[int, Any], ...] = ()
    logprob: float = 0.0
    ended: bool = False  # with the end token, which is among ``tokens`` only where it is to be seen

    def after(self, token: int, position: Mapping[int, Any], *, seen: bool = True, ends: bool = False) -> Beam:
        own = {token: position[token], **position}
        return Beam(
            tokens=(*self.tokens, token) if seen else self.tokens,
            positions=(*self.positions, own) if seen else self.positions,
            logprob=self.logprob + position[token].logprob,
            ended=ends,
        )


async def search(
    next_tokens: NextTokens, wish: Wish, *, most: int, prompt_tokens: int, end: int | None, shows_end: bool
) -> list[Beam]:
    """Up to ``most`` tokens each. ``end``: the token that ends a beam; None: none does.

    The score of a beam is its log-probability over its length with the prompt's, to the power of the length penalty.
    """
    beams, ended = [Beam()], []
    for _ in range(most):
        found = await next_tokens([beam.tokens for beam in beams])
        going: list[Beam] = []
        for beam, position in zip(beams, found, strict=True):
            for token in position:
                if token == end:
                    ended.append(beam.after(token, position, seen=shows_end, ends=True))
                else:
                    going.append(beam.after(token, position))
        beams = heapq.nlargest(wish.width, going, key=lambda beam: beam.logprob)
        if not beams:
            break

    def score(beam: Beam) -> float:
        length = prompt_tokens + len(beam.tokens) - (beam.ended and shows_end)
        return beam.logprob / max(length, 1) ** wish.length_penalty

    return heapq.nlargest(wish.width, [*ended, *beams], key=score)
