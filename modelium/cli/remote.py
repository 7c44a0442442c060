"""The verbs' side of the gateway: a path enters, the reply's bytes leave, or one sentence that says what went wrong.

Synchronous and from the standard library: a verb makes one or two requests, and starts in a third of the time without aiohttp.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from urllib.parse import quote, urlsplit

from modelium.errors import ModeliumError

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


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
    """A running Modelium at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # A proxy from the environment is for the world outside, never for this machine.
        local = urlsplit(self.url).hostname in _LOOPBACK
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if local else None))

    def get(self, path: str, *, timeout_s: float = 30) -> bytes:
        return self._ask("GET", path, timeout_s=timeout_s)

    def post(self, path: str, *, timeout_s: float) -> bytes:
        """POST without a body; the gateway gives up after ``timeout_s`` and says so, a little later we would."""
        return self._ask("POST", path, timeout_s=timeout_s + 5, headers={"X-Request-Timeout": f"{timeout_s:g}"})

    def _ask(self, method: str, path: str, *, timeout_s: float, headers: dict[str, str] | None = None) -> bytes:
        try:
            request = urllib.request.Request(self.url + path, method=method, headers=headers or {})
            with self._opener.open(request, timeout=timeout_s) as response:
                body: bytes = response.read()
                return body
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
        return Refused(str(reply["error"]), str(reply.get("type", "error")), error.code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Refused(
            f"{url} answered with HTTP {error.code} and no word of Modelium's: is it the gateway?", "error", error.code
        )
