"""What a host's name says by itself: a name or an address enters, whether it is an address, or this machine, leaves."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

LOOPBACK_NAMES = frozenset({"localhost"})


@lru_cache(maxsize=256)  # the same few hosts come with every request
def is_address(name: str) -> bool:
    """Is it an IP address, not a name?"""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether only this machine reaches it, and it names no other.

    >>> [is_loopback(name) for name in ("LOCALHOST", "127.0.0.2", "::1", "0.0.0.0", "", "localhost.evil.example")]
    [True, True, True, False, False, False]
    """
    return name.lower() in LOOPBACK_NAMES or (is_address(name) and ipaddress.ip_address(name).is_loopback)
