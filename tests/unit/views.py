"""Values as JSON where no event loop runs."""

from __future__ import annotations

import asyncio

from modelium.gateway.status.models import listed
from modelium.values import Snapshot


def snapshot_view(snapshot: Snapshot) -> dict[str, object]:
    """``GET /models``."""
    return asyncio.run(listed(snapshot))
