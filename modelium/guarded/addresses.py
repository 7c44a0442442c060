"""Addresses that a guarded program is to listen on: what enters are ``host:port`` words of the configuration, what leaves are
addresses that are free now, or an error that says who sits there and which key to change.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from modelium.errors import ConfigError, TritonError

_BELOW, _TRIES = 8192, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(url: str, key: str) -> Address:
    """``127.0.0.1:8000``, ``[::1]:8000``, also with ``http://`` before it. ``key`` names the configuration's key in errors."""
    host, colon, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{key}: {url!r} is not host:port, like 127.0.0.1:8000")
    return Address(host=host.strip("[]"), port=int(port))


def claim_addresses(urls: Mapping[str, str], *, who: str = "Triton") -> dict[str, Address]:
    """Per configuration key an address that can be bound now; port 0 is replaced by a free one. ``who`` will listen there.

    Raises ``TritonError`` for a port that is taken. All are held until all are found, so that they differ.
    """
    wanted = {key: parse_address(url, key) for key, url in urls.items()}
    seen: dict[int, str] = {}
    for key, address in wanted.items():
        if address.port and address.port in seen:
            raise ConfigError(f"{key} and {seen[address.port]} name the same port, {address.port}: give each its own")
        seen[address.port] = key
    with contextlib.ExitStack() as held:
        claimed: dict[str, Address] = {}
        for key, address in wanted.items():
            try:
                listener = held.enter_context(_listen(address))
            except OSError as error:
                raise TritonError(_explain(who, key, address, error)) from error
            claimed[key] = Address(host=address.host, port=listener.getsockname()[1])
        return claimed


def _listen(address: Address) -> socket.socket:
    """For port 0 on a port of the system's choice only where none below those is free: an outgoing connection takes one of
    the system's at any time, also between this look and the start of the program that is to listen.
    """
    family, kind, protocol, _, where = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    for port in (*_below_ephemeral(), 0) if not address.port else (address.port,):
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((where[0], port, *where[2:]))
            listener.listen(1)  # two sockets may be *bound* to one port with SO_REUSEADDR, but only one can listen
        except OSError:
            listener.close()
            if port == address.port:
                raise
        else:
            return listener
    raise AssertionError("the last port raises")


def _below_ephemeral() -> list[int]:
    lowest = _lowest_ephemeral_port()
    ports = range(max(1024, lowest - _BELOW), lowest)
    return random.SystemRandom().sample(ports, min(_TRIES, len(ports)))


def _lowest_ephemeral_port() -> int:
    """Of those that outgoing connections get (ip(7), ip_local_port_range)."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


def _explain(who: str, key: str, address: Address, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"{key}: the host {address.host!r} is not known: {error.strerror}"
    holder = _listener_on(address.port)
    if holder is not None:
        return f"port {address.port} for {who} is taken by {holder}: end it, or choose another port with `{key}`"
    return f"{who} cannot listen on {address} ({error.strerror}): choose another address with `{key}`"


def _listener_on(port: int) -> str | None:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                if connection.pid is None:
                    return "another user's process"
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return None
