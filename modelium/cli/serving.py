"""``modelium serve``: settings enter, the running system, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging

import uvloop

from modelium.app import serve
from modelium.cli.log_lines import count_equal_lines
from modelium.config import Settings
from modelium.errors import ConfigError

_LEVELS = ("debug", "info", "warning", "error")


def run(settings: Settings, log_level: str) -> None:
    """Block until SIGTERM or SIGINT."""
    if log_level not in _LEVELS:
        raise ConfigError(f"--log-level {log_level}: one of {', '.join(_LEVELS)}")
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    count_equal_lines()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
