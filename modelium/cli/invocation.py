"""What holds for every verb: the global options enter, settings and the gateway's address leave when a verb first asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelium.cli.remote import Remote
    from modelium.config import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The global options; the configuration is read when a verb first asks for it."""

    config: Path | None
    url: str | None
    api_key_file: Path | None

    def settings(self) -> Settings:
        from modelium.config import load_settings

        return load_settings(self.config)

    def remote(self) -> Remote:
        from modelium.cli.remote import Remote, find_key

        if self.url is not None:
            return Remote(self.url, key=find_key(self.api_key_file))
        gateway = self.settings().gateway
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(gateway.host, gateway.host)
        return Remote(f"http://{host}:{gateway.port}", key=find_key(self.api_key_file, gateways_own=gateway.api_keys_file))
