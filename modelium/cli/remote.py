"""The verbs' side of the gateway: a path enters, the reply's bytes leave, or one sentence that says what went wrong.

An API key goes along where there is one: from ``--api-key-file``, else ``$MODELIUM_API_KEY``, else from the file that the
gateway of this machine reads its own keys from.

Synchronous and from the standard library: a verb makes one or two requests, and starts in a third of the time without aiohttp.
"""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlsplit

from modelium.api_keys import is_key, read_keys
from modelium.errors import ConfigError, ModeliumError
from modelium.hosts import is_loopback


class Unreachable(ModeliumError):
    """Nothing answers at the gateway's address."""

    type = "unreachable"


class Refused(ModeliumError):
    """The gateway answered with an error; the message is its sentence, ``type`` its word."""

    def __init__(self, message: str, type: str, status: int) -> None:
        super().__init__(message)
        self.type = type
        self.status = status


class Remote:
    """A running Modelium at ``url``; ``key`` is sent along."""

    def __init__(self, url: str, *, key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._key = key
        # A proxy from the environment is for the world outside, never for this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if is_local(self.url) else None))

    @property
    def sends_a_key(self) -> bool:
        """Is there a key to send?"""
        return self._key is not None

    def get(self, path: str, *, timeout_s: float = 30) -> bytes:
        """The reply's body. Raises ``Refused`` and ``Unreachable``."""
        return self._ask("GET", path, timeout_s=timeout_s)

    def post(self, path: str, *, timeout_s: float, body: bytes | None = None) -> bytes:
        """POST; the gateway gives up after ``timeout_s`` and says so, a little later we would. ``body``: JSON."""
        headers = {"X-Request-Timeout": f"{timeout_s:g}"} | ({} if body is None else {"Content-Type": "application/json"})
        return self._ask("POST", path, timeout_s=timeout_s + 5, headers=headers, body=body)

    def _ask(
        self, method: str, path: str, *, timeout_s: float, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> bytes:
        try:
            request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers or {})
            if self._key is not None:  # a redirection elsewhere does not take it along
                request.add_unredirected_header("Authorization", f"Bearer {self._key}")
            with self._opener.open(request, timeout=timeout_s) as response:
                reply: bytes = response.read()
                return reply
        except urllib.error.HTTPError as error:
            raise _refusal(self.url, error) from None
        except TimeoutError:
            raise Unreachable(f"{self.url} did not answer within {timeout_s:g} s") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise Unreachable(f"{self.url} did not answer within {timeout_s:g} s") from None
            raise _nobody(self.url, error.reason) from None
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a URL at all
            raise _nobody(self.url, error) from None


def is_local(url: str) -> bool:
    """Does it name this machine?"""
    return is_loopback(urlsplit(url).hostname or "")


def find_key(file: Path | None, *, gateways_own: Path | None = None) -> str | None:
    """The key to send, if there is any. Raises ``ConfigError`` where a file that was asked for by name has none."""
    if file is not None:
        return _first_key(file)
    if key := os.environ.get("MODELIUM_API_KEY", "").strip():
        if not is_key(key):  # http.client would say so too, and show it
            raise ConfigError("$MODELIUM_API_KEY holds something that is no key")
        return key
    # A user of this machine who may read the gateway's keys need not be given one.
    if gateways_own is not None and os.access(gateways_own, os.R_OK):
        return _first_key(gateways_own)
    return None


def _first_key(file: Path) -> str:
    keys = read_keys(file)
    if not keys:
        raise ConfigError(f"there is no API key in {file}")
    return keys[0].key


def model_path(name: str, verb: str = "") -> str:
    """``/models/NAME`` or ``/models/NAME/VERB``; a slash in a label (``org/name``) stays inside its segment."""
    return f"/models/{quote(name, safe='')}" + (f"/{verb}" if verb else "")


def _nobody(url: str, reason: object) -> Unreachable:
    if isinstance(reason, ConnectionRefusedError):
        return Unreachable(f"no Modelium answers at {url}; start one with `modelium serve`, or name another with --url")
    return Unreachable(f"no Modelium answers at {url}: {reason}")


def _refusal(url: str, error: urllib.error.HTTPError) -> Refused:
    try:
        reply = json.loads(error.read())
        said = str(reply["error"])
        if error.code == 401:
            said += "; the verbs send $MODELIUM_API_KEY, or the first key of --api-key-file"
        return Refused(said, str(reply.get("type", "error")), error.code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Refused(
            f"{url} answered with HTTP {error.code} and no word of Modelium's: is it the gateway?", "error", error.code
        )
