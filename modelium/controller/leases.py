"""Leases: the right to send one request to a loaded model. A model with leases is never unloaded by policy.

What enters: a model that serves. What leaves: a ``Lease`` that must be released once; releasing twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from modelium.signatures import Signature, signature
from modelium.values import ModelProfile, Placement


class Lease:
    """One request's hold on a model. ``with lease:`` releases it; ``waited_s`` is what the request waited for a load.

    ``cold``: the model was not loaded when the request came. ``placement`` says how many rows go into one inference.
    ``lost()``: has a process died that the request was sent to?
    """

    __slots__ = ("_release", "cold", "lost", "placement", "profile", "waited_s")

    def __init__(
        self,
        *,
        profile: ModelProfile,
        placement: Placement,
        release: Callable[[], None],
        lost: Callable[[], bool] = lambda: False,
    ) -> None:
        self.profile = profile
        self.placement = placement
        self.lost = lost
        self.waited_s = 0.0
        self.cold = False
        self._release: Callable[[], None] | None = release

    @property
    def signature(self) -> Signature:
        """The tensors that the model takes and answers with, as it is served now."""
        return signature(self.profile, by_vllm=self.placement.by_vllm)

    def release(self) -> None:
        """The request is over, however it ended."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def then(self, after: Callable[[], None]) -> None:
        """Also done when it is released."""
        release = self._release

        def both() -> None:
            if release is not None:
                release()
            after()

        self._release = both

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
