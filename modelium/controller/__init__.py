"""The one writer: it owns all model state, reads one queue of events, and turns each pass of observe → plan → apply.

What enters: folder scans, requests for leases, commands, and the ends of slow work. What leaves: work for the repository
and Triton, leases for the gateway, and a ``Snapshot`` for everybody who only looks.
"""

from modelium.controller.core import Controller
from modelium.controller.leases import Lease
from modelium.controller.news import Listener, News, Newsroom

__all__ = ["Controller", "Lease", "Listener", "News", "Newsroom"]
