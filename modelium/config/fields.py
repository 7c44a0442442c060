"""Kinds of values in ``modelium.yaml``: what a user writes enters, what pydantic checks leaves."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(value: object) -> object:
    """``"12GiB"`` → 12884901888. Whole numbers pass; anything else is left for pydantic to refuse.

    >>> parse_bytes("1.5 GiB")
    1610612736
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", value.lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{value!r} is not a size; write it like 12GiB, 512MiB or a number of bytes")
    size = float(match[1]) * _UNITS[match[2]]
    if size == math.inf:
        raise ValueError(f"{value[:20]}… is no size that any machine has; write it like 12GiB, 512MiB or a number of bytes")
    return int(size)


def lacks_unit(size: str) -> bool:
    """A number alone. Where it would be one of bytes, but what is sized has many, GiB was forgotten.

    >>> lacks_unit("80"), lacks_unit("1.5"), lacks_unit("80GiB"), lacks_unit("80 B")
    (True, True, False, False)
    """
    return size.replace(".", "", 1).strip().isdecimal()


def no_value(value: object) -> object:
    """An empty text is no path and no port: a container's environment names every variable, set or not."""
    return None if value == "" else value


Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(ge=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
OptionalPort = Annotated[Port | None, BeforeValidator(no_value)]
OptionalPath = Annotated[Path | None, BeforeValidator(no_value)]
Seconds = Annotated[float, Field(gt=0)]


def ray_address(value: object) -> object:
    """``auto`` or ``HOST:PORT``, the port being that of the cluster's GCS.

    >>> ray_address("ray-head:6379")
    'ray-head:6379'
    """
    if value == "auto" or not isinstance(value, str):
        return value
    if value.startswith("ray://"):
        raise ValueError("Ray's client protocol (ray://) cannot carry Ray Serve: give the GCS of the cluster, HOST:6379")
    host, colon, port = value.rpartition(":")
    if not (colon and host and "/" not in host and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{value!r} is neither auto nor HOST:PORT, like ray-head:6379")
    return value


RayAddress = Annotated[str, BeforeValidator(ray_address)]


class SecretSource(BaseModel):
    """Where a secret lies that is not to stand in the configuration: ``{env: NAME}`` or ``{file: PATH}``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _check_one(self) -> SecretSource:
        if (self.env is None) == (self.file is None):
            raise ValueError("write the value itself, or {env: NAME}, or {file: PATH}")
        return self


def header_name(value: str) -> str:
    """gRPC's metadata: lower case, and not its own.

    >>> header_name("triton-grpc-protocol-modelium")
    'triton-grpc-protocol-modelium'
    """
    if not re.fullmatch(r"[a-z0-9._-]+", value) or value.startswith("grpc-") or value.endswith("-bin"):
        raise ValueError(f"{value!r} is no name of a header that gRPC sends: small letters, digits, '-', '_' and '.'")
    return value


HeaderName = Annotated[str, AfterValidator(header_name)]
HeaderValue = SecretStr | SecretSource


def variables(value: object) -> object:
    """``[NAME, …]`` is short for ``{NAME: null, …}``."""
    return dict.fromkeys(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else value


VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Variables = Annotated[dict[VariableName, str | None], BeforeValidator(variables)]


def host_name(value: object) -> object:
    """A name as it stands in ``Host``, without a port; ``*.NAME`` is every name below it, ``*`` every name.

    >>> host_name("models.example.org")
    'models.example.org'
    """
    if isinstance(value, str) and value != "*" and not _HOST_NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is no host name: write it like models.example.org or *.example.org, without http:// or a port"
        )
    return value


def web_origin(value: object) -> object:
    """Where a page comes from, as browsers write it; ``*`` is every site.

    >>> web_origin("https://chat.example.org/")
    'https://chat.example.org'
    """
    if not isinstance(value, str) or value == "*":
        return value
    origin = value.lower().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{value!r} is no origin: write it like https://chat.example.org or http://localhost:3000")
    return origin


_HOST_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+")

HostName = Annotated[str, BeforeValidator(host_name)]
WebOrigin = Annotated[str, BeforeValidator(web_origin)]
