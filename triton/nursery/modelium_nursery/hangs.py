"""Whether a child that is asked computes anything: its process id enters, that it hangs leaves.

A process that waits for a lock that nobody gives back, or was stopped, uses no processor time; one that computes, however
slowly, does. The time of what it has started counts, too: an engine computes in processes of its own.
"""

from __future__ import annotations

HANGS_AFTER_S = 60.0
_LOOK_S = 1.0
_STATE_ENDS = ") "  # before it is the name, which may have any signs
_USER_TIME, _SYSTEM_TIME = 11, 12  # of /proc/PID/stat, counted from the state


class Watch:
    """Of one child. Not for several threads at once."""

    def __init__(self, pid: int, after_s: float = HANGS_AFTER_S) -> None:
        self._pid, self.after_s = pid, after_s
        self.begin()

    def begin(self) -> None:
        """It is asked now, after it was not."""
        self._looked_at = 0.0
        self._ticks = -1
        self._quiet_s = 0.0

    def hangs(self, now: float) -> bool:
        """Has it computed nothing for so long while it was asked? To be called again and again; ``now``: seconds, monotonic.

        Each look counts for a second at most: where this process did not run either, nothing is known of the child.
        """
        if now - self._looked_at < _LOOK_S:
            return False
        ticks = _ticks(self._pid)
        self._quiet_s = self._quiet_s + _LOOK_S if ticks == self._ticks else 0.0
        self._looked_at, self._ticks = now, ticks
        return self._quiet_s >= self.after_s


def _ticks(pid: int) -> int:
    """The processor time of a process and all below it; of one that has ended, 0."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:  # noqa: PTH123 - a stub imports little
            fields = file.read().rpartition(_STATE_ENDS)[2].split()
        with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123
            children = file.read().split()
        return int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME]) + sum(_ticks(int(child)) for child in children)
    except (OSError, ValueError, IndexError):
        return 0
