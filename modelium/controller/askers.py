"""Who asks now. A protocol sets it when a request was let in; whatever the request does from then on is asked by that one.

It is a variable of the context, so the tasks that a request starts have it too, and no protocol hands it from call to call.
"""

from __future__ import annotations

from contextvars import ContextVar

from modelium.values import Asker

ASKER: ContextVar[Asker] = ContextVar("asker", default=Asker())  # noqa: B039 — it is frozen
