"""Where a model is in its life, and what each of those states means: the one table that everybody asks.

Which state may follow which is ``brain.lifecycle``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class Tone(Enum):
    """How a state is to look. Each surface (terminal, page, dashboards) has its own colour for it."""

    INCOMING = auto()
    REFUSED = auto()
    RESTING = auto()
    COMING = auto()
    GOOD = auto()
    GOING = auto()
    BROKEN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    tone: Tone
    is_listed: bool = True
    is_broken: bool = False
    may_load: bool = False
    serves: bool = False
    occupies: bool = False
    leaves: bool = False


class State(StrEnum):
    """What users see as ``state``. Ask a state what it means; do not list states."""

    INCOMPLETE = "INCOMPLETE"
    UNSUPPORTED = "UNSUPPORTED"
    UNLOADED = "UNLOADED"
    LOADING = "LOADING"
    LOADED = "LOADED"
    DRAINING = "DRAINING"
    UNLOADING = "UNLOADING"
    FAILED = "FAILED"

    @property
    def _meaning(self) -> _Meaning:
        return _MEANINGS[self]

    @property
    def tone(self) -> Tone:
        """How it is to look."""
        return self._meaning.tone

    @property
    def is_listed(self) -> bool:
        """It can be served, now or after a load: clients are shown it."""
        return self._meaning.is_listed

    @property
    def is_broken(self) -> bool:
        """It will not serve by itself: it was refused, or it failed."""
        return self._meaning.is_broken

    @property
    def is_hindered(self) -> bool:
        """Something keeps it from being served, and its reason says what."""
        return self.is_broken or not self.is_listed

    @property
    def may_load(self) -> bool:
        """A load may begin."""
        return self._meaning.may_load

    @property
    def serves(self) -> bool:
        """Triton answers for it."""
        return self._meaning.serves

    @property
    def still_answers(self) -> bool:
        """What was begun is answered to its end: Triton ends it before it unloads."""
        return self.serves or self.leaves

    @property
    def occupies(self) -> bool:
        """Its memory is taken or promised."""
        return self._meaning.occupies

    @property
    def leaves(self) -> bool:
        """Its memory is on its way back."""
        return self._meaning.leaves

    @property
    def is_moving(self) -> bool:
        """A load or an unload is under way."""
        return self.leaves or (self.occupies and not self.serves)

    @property
    def stays(self) -> bool:
        """It occupies memory and will go on to."""
        return self.occupies and not self.leaves


_MEANINGS = {
    State.INCOMPLETE: _Meaning(tone=Tone.INCOMING, is_listed=False),
    State.UNSUPPORTED: _Meaning(tone=Tone.REFUSED, is_listed=False, is_broken=True),
    State.UNLOADED: _Meaning(tone=Tone.RESTING, may_load=True),
    State.LOADING: _Meaning(tone=Tone.COMING, occupies=True),
    State.LOADED: _Meaning(tone=Tone.GOOD, serves=True, occupies=True),
    State.DRAINING: _Meaning(tone=Tone.GOING, serves=True, occupies=True, leaves=True),
    State.UNLOADING: _Meaning(tone=Tone.GOING, occupies=True, leaves=True),
    State.FAILED: _Meaning(tone=Tone.BROKEN, is_broken=True, may_load=True),
}
