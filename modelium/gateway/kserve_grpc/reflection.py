"""gRPC's server reflection (``v1`` and ``v1alpha``, which are alike on the wire): files of protobuf enter, answers leave.

The reference packages of gRPC's own line ask for another protobuf than tritonclient does, and this is all there is to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import grpc
from google.protobuf import descriptor_pb2

from modelium.gateway.kserve_grpc import wire
from modelium.gateway.kserve_grpc.caller import Context

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
# Fields of ServerReflectionRequest and of ServerReflectionResponse.
_FILE, _SYMBOL, _EXTENSION, _NUMBERS, _LIST = 3, 4, 5, 6, 7
_HOST, _ASKED, _FILES, _SERVICES, _ERROR = 1, 2, 4, 6, 7


class Reflection:
    """The handler. ``files``: what there is, serialized ``FileDescriptorProto``; ``services``: what is served."""

    def __init__(self, files: Iterable[bytes], services: Iterable[str]) -> None:
        self._services = sorted(services)
        self._by_name: dict[str, bytes] = {}
        self._needs: dict[str, list[str]] = {}
        self._by_symbol: dict[str, str] = {}
        for data in files:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            self._by_name[file.name] = data
            self._needs[file.name] = list(file.dependency)
            for symbol in _symbols(file):
                self._by_symbol[symbol] = file.name

    async def answer(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """``ServerReflectionInfo``."""
        async for request in requests:
            await context.write(self.answer_to(request))

    def answer_to(self, request: bytes) -> bytes:
        """The response to one request. Raises ``Malformed``."""
        asked = 0
        for number, *_ in wire.spans(request):
            asked = number if _FILE <= number <= _LIST else asked
        match asked:
            case 3:
                said = self._files(wire.text_of(request, _FILE))
            case 4:
                said = self._files(self._by_symbol.get(wire.text_of(request, _SYMBOL), ""))
            case 7:
                said = wire.bytes_field(
                    _SERVICES, b"".join(wire.bytes_field(1, wire.bytes_field(1, name)) for name in self._services)
                )
            case 5 | 6:
                said = _error(grpc.StatusCode.NOT_FOUND, "there are no extensions here")
            case _:
                said = _error(grpc.StatusCode.INVALID_ARGUMENT, "nothing is asked for that is known here")
        host = wire.text_of(request, 1)
        return b"".join((wire.bytes_field(_HOST, host), wire.bytes_field(_ASKED, request), said))

    def _files(self, name: str) -> bytes:
        """The file and all that it needs, as the reference implementation answers."""
        if name not in self._by_name:
            return _error(grpc.StatusCode.NOT_FOUND, "there is nothing of that name here")
        found: dict[str, bytes] = {}
        wanted = [name]
        while wanted:
            each = wanted.pop()
            if each not in found and each in self._by_name:
                found[each] = self._by_name[each]
                wanted.extend(self._needs[each])
        return wire.bytes_field(_FILES, b"".join(wire.bytes_field(1, data) for data in found.values()))


def _error(code: grpc.StatusCode, words: str) -> bytes:
    return wire.bytes_field(_ERROR, wire.number_field(1, code.value[0]) + wire.bytes_field(2, words))


def _symbols(file: descriptor_pb2.FileDescriptorProto) -> Iterable[str]:
    prefix = f"{file.package}." if file.package else ""
    for service in file.service:
        yield prefix + service.name
        for method in service.method:
            yield f"{prefix}{service.name}.{method.name}"
    for enum in file.enum_type:
        yield prefix + enum.name
    for message in file.message_type:
        yield from _messages(prefix, message)


def _messages(prefix: str, message: descriptor_pb2.DescriptorProto) -> Iterable[str]:
    name = prefix + message.name
    yield name
    for field in message.field:
        yield f"{name}.{field.name}"
    for enum in message.enum_type:
        yield f"{name}.{enum.name}"
    for inner in message.nested_type:
        yield from _messages(f"{name}.", inner)
