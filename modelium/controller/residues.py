"""What loads and unloads leave on the devices. What enters: when each begins and ends. What leaves: ``MemoryLeft`` events, one
for each model of which nothing is loaded any more.

Only the windows of time in which a load or an unload runs are looked at: what Triton takes while it answers requests is
nobody's leak. Where two such windows overlap on a device, neither says what was whose: that model is not judged there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from modelium.brain.leaks import NOISE_BYTES
from modelium.controller.events import Event, MemoryLeft
from modelium.devices import Devices
from modelium.values import DeviceKind, device_id

log = logging.getLogger(__name__)

_HOST = device_id(DeviceKind.HOST)
_LOOK_AGAIN_S = (0.02, 0.2)  # at growing intervals between these
_HOST_LAGS_S = 1.0  # a process that Triton forks has all of Triton's memory, until it becomes the stub that it is to be


@dataclass(slots=True, kw_only=True)
class _Account:
    """Of a model since it was last not loaded at all. ``void``: the devices on which others came or went meanwhile."""

    pid: int
    devices: frozenset[str]
    grown: dict[str, int] = field(default_factory=dict)
    void: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True, eq=False)
class Window:
    """A load or an unload that is under way."""

    key: str
    account: _Account
    before: Mapping[str, int] = field(default_factory=dict)


class Residues:
    """``post`` must be callable from the event loop's thread only."""

    def __init__(self, post: Callable[[Event], None], devices: Devices, server_pid: Callable[[], int | None]) -> None:
        self._post = post
        self._devices = devices
        self._server_pid = server_pid
        self._accounts: dict[str, _Account] = {}
        self._open: list[Window] = []
        self._quiet: dict[str, int] = {}  # the last reading, of devices on which nobody came or went since
        self._quiet_pid: int | None = None  # of whose Triton

    def note(self, pid: int, residues: Mapping[str, int]) -> None:
        """A reading, of the Triton with that process id."""
        if pid != self._quiet_pid:
            self._quiet, self._quiet_pid = {}, pid
        busy = {device for window in self._open for device in window.account.devices}
        self._quiet |= {device: size for device, size in residues.items() if device not in busy}

    async def load(self, key: str, devices: Collection[str]) -> Window | None:
        """A load begins on those devices; None where Triton's processes cannot be seen."""
        pid = self._server_pid()
        if pid is None:
            return None
        account = self._accounts.get(key)
        if account is None or account.pid != pid:
            account = self._accounts[key] = _Account(pid=pid, devices=frozenset(devices) | {_HOST})
        account.devices |= frozenset(devices)
        return await self._begin(key, account)

    async def unload(self, key: str, *, died: bool = False) -> Window | None:
        """An unload begins. ``died``: a process of the model did before, so the last reading says what was there."""
        account = self._accounts.get(key)
        if account is None or account.pid != self._server_pid():
            return None
        return await self._begin(key, account, died=died)

    async def end(self, window: Window | None, *, back_by: float = 0.0, returning: Callable[[], int] = lambda: 0) -> None:
        """It has ended. Memory that an unload should bring back is waited for until ``back_by``, on the monotonic clock.

        ``returning``: of the host's, what Triton gives back in a moment.
        """
        if window is None:
            return
        account, began, pause = window.account, time.monotonic(), _LOOK_AGAIN_S[0]
        try:
            while True:
                after = dict(await self._read(account))
                if _HOST in after:
                    after[_HOST] -= min(after[_HOST], returning())
                grown = {device: size - window.before[device] for device, size in after.items() if device in window.before}
                now = time.monotonic()
                late = {device for device, size in grown.items() if account.grown.get(device, 0) + size > NOISE_BYTES}
                late -= account.void
                if now - began > _HOST_LAGS_S:
                    late.discard(_HOST)
                if not late or now > back_by:
                    break
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LOOK_AGAIN_S[1])
        finally:
            self._open.remove(window)
        for device in account.devices:
            if device in grown:
                account.grown[device] = account.grown.get(device, 0) + grown[device]
            else:
                account.void.add(device)
        self.note(account.pid, after)

    def forget(self, window: Window | None) -> None:
        """It came to no end that says anything, unless it has ended."""
        if window in self._open:
            self._open.remove(window)
            self._accounts.pop(window.key, None)

    def settle(self, key: str) -> None:
        """Nothing of the model is loaded any more."""
        account = self._accounts.pop(key, None)
        if account is None or account.pid != self._server_pid():
            return
        grown = {d: size for d, size in account.grown.items() if d not in account.void and d in self._quiet}
        if grown:
            self._post(MemoryLeft(model=key, grown=grown, residues={device: self._quiet[device] for device in grown}))

    async def _begin(self, key: str, account: _Account, *, died: bool = False) -> Window:
        window = Window(key=key, account=account)
        for other in self._open:
            shared = account.devices & other.account.devices
            account.void |= shared
            other.account.void |= shared
        self._open.append(window)
        known = {device: self._quiet.pop(device) for device in account.devices if device in self._quiet}
        window.before = known if died else await self._read(account)
        return window

    async def _read(self, account: _Account) -> Mapping[str, int]:
        try:
            found = await asyncio.to_thread(self._devices.residues, account.pid)
        except Exception:  # no load fails for want of a measurement
            log.exception("what Triton itself holds could not be measured, a defect of Modelium")
            found = {}
        return {device: size for device, size in found.items() if device in account.devices}
