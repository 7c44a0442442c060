"""A secret of the configuration: where it lies enters, the secret itself leaves, and stands in no message."""

from __future__ import annotations

import os

from pydantic import SecretStr

from modelium.config.fields import HeaderValue
from modelium.errors import ConfigError

_LONGEST = 8192


def read_secret(key: str, value: HeaderValue) -> str:
    """Without the white space around it. "" for a variable that is not set or empty, and for an empty file: a container's
    environment names every variable, and mounts every file. Raises ``ConfigError`` that names the configuration's ``key``."""
    if isinstance(value, SecretStr):
        found = value.get_secret_value()
    elif value.env is not None:
        found = os.environ.get(value.env, "")
    else:
        assert value.file is not None
        try:
            with value.file.open(encoding="utf-8") as file:
                found = file.read(_LONGEST + 1)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key}: {value.file} cannot be read: {error}") from error
    found = found.strip()
    if len(found) > _LONGEST or not found.isascii() or not found.isprintable():
        raise ConfigError(f"{key}: what it holds cannot be sent as a header: printable ASCII, at most {_LONGEST} characters")
    return found
