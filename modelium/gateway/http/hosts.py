"""Names that this server answers to: a ``Host`` header enters, whether it is one of ours leaves. Pure.

A page whose name is re-bound to this machine's address (DNS rebinding) still sends its own name as ``Host``: so names count
when they were configured, and any IP address counts, since a page at an address came from that very address.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from modelium.hosts import LOOPBACK_NAMES, is_address, is_loopback

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHosts:
    """``names`` are whole names, ``suffixes`` begin with a dot, ``all_names`` is ``allowed_hosts: ["*"]``."""

    names: frozenset[str]
    suffixes: tuple[str, ...] = ()
    all_names: bool = False

    @classmethod
    def of(cls, allowed: Iterable[str], *, bound: str, machine: str) -> KnownHosts:
        """``allowed`` as configured, the host that the server is bound to and, where others reach it, the machine's name."""
        said = {name.lower() for name in allowed}
        ours = {bound.lower(), *LOOPBACK_NAMES} | (set() if is_loopback(bound) else {machine.lower()})
        return cls(
            names=frozenset({name for name in said if not name.startswith("*")} | ours),
            suffixes=tuple(sorted(name[1:] for name in said if name.startswith("*."))),
            all_names="*" in said,
        )

    def know(self, host: str) -> bool:
        """Whether ``host``, as it stands in the header, is an address or a name of ours.

        >>> hosts = KnownHosts(names=frozenset({"localhost"}), suffixes=(".svc",))
        >>> [hosts.know(host) for host in ("LOCALHOST:8080", "10.1.2.3", "[::1]:8080", "m.ns.svc", "evil.example")]
        [True, True, True, True, False]
        """
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = (match["v6"] or match["name"]).lower().removesuffix(".")
        return (
            self.all_names or name in self.names or is_address(name) or (match["v6"] is None and name.endswith(self.suffixes))
        )
