"""What holds for every verb: the global options enter, settings and the gateway's address leave when a verb first asks."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelium.errors import ConfigError

if TYPE_CHECKING:
    from modelium.cli.remote import Remote
    from modelium.config import Found, Settings

_HOST_VARIABLE = {"MODELIUM__GATEWAY__HOST"}


@dataclass(slots=True, kw_only=True)
class Invocation:
    """The global options; the configuration is looked for when a verb first asks for it."""

    config: Path | None
    url: str | None
    api_key_file: Path | None
    _found: Found | None = field(default=None, init=False)

    def settings(self, *, to_serve: bool = False) -> Settings:
        """``to_serve``: a file that does not count is no reason to serve without what is in it."""
        from modelium.config import load_settings

        found = self._find()
        if to_serve and found.ignored:
            raise ConfigError(f"{found.ignored}; or serve from another directory")
        return load_settings(found.path) if found.path is not None else load_settings(None)

    def remote(self) -> Remote:
        """The gateway, and a key for it: only where its address was given, or is this machine's.

        What a configuration says that was merely found in the working directory is no reason to send a key to another machine.
        """
        from modelium.cli.remote import Remote, find_key, is_local

        if self.url is not None:
            return Remote(self.url, key=find_key(self.api_key_file))
        gateway = self.settings().gateway
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)
        url = f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"
        found = self._find()
        if found.path is not None and not found.given and not _HOST_VARIABLE & os.environ.keys() and not is_local(url):
            _say(
                f"no API key is sent to {url}: {found.path} was found here, not given; name the gateway with --url or "
                f"$MODELIUM_URL, or the file with --config"
            )
            return Remote(url)
        return Remote(url, key=find_key(self.api_key_file, gateways_own=gateway.api_keys_file))

    def _find(self) -> Found:
        from modelium.config import find_config

        if self._found is None:
            self._found = find_config(self.config, variables=os.environ, directory=Path.cwd())
            if self._found.ignored:
                _say(self._found.ignored)
        return self._found


def _say(words: str) -> None:
    sys.stderr.write(f"modelium: {words}\n")
