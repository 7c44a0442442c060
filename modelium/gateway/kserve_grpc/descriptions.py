"""The health service and reflection as protobuf describes them: nothing enters, ``FileDescriptorProto``s leave, serialized."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf import descriptor_pb2

_Field = descriptor_pb2.FieldDescriptorProto
_KINDS = {"string": _Field.TYPE_STRING, "bytes": _Field.TYPE_BYTES, "int32": _Field.TYPE_INT32}
_ONE_OF, _MANY = "of ", "all "  # before a kind: a part of the message's one choice; several
_HEALTH: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "HealthCheckRequest": {"service": (1, "string")},
    "HealthCheckResponse": {"status": (1, "ServingStatus")},
}
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_REFLECTION: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "ServerReflectionRequest": {
        "host": (1, "string"),
        "file_by_filename": (3, "of string"),
        "file_containing_symbol": (4, "of string"),
        "file_containing_extension": (5, "of ExtensionRequest"),
        "all_extension_numbers_of_type": (6, "of string"),
        "list_services": (7, "of string"),
    },
    "ExtensionRequest": {"containing_type": (1, "string"), "extension_number": (2, "int32")},
    "ServerReflectionResponse": {
        "valid_host": (1, "string"),
        "original_request": (2, "ServerReflectionRequest"),
        "file_descriptor_response": (4, "of FileDescriptorResponse"),
        "all_extension_numbers_response": (5, "of ExtensionNumberResponse"),
        "list_services_response": (6, "of ListServiceResponse"),
        "error_response": (7, "of ErrorResponse"),
    },
    "FileDescriptorResponse": {"file_descriptor_proto": (1, "all bytes")},
    "ExtensionNumberResponse": {"base_type_name": (1, "string"), "extension_number": (2, "all int32")},
    "ListServiceResponse": {"service": (1, "all ServiceResponse")},
    "ServiceResponse": {"name": (1, "string")},
    "ErrorResponse": {"error_code": (1, "int32"), "error_message": (2, "string")},
}


def health() -> bytes:
    """``grpc.health.v1``."""
    file = _file("grpc.health.v1", "grpc/health/v1/health.proto", _HEALTH)
    statuses = file.message_type[1].enum_type.add(name="ServingStatus")
    for number, name in enumerate(_STATUSES):
        statuses.value.add(name=name, number=number)
    service = file.service.add(name="Health")
    for method, streams in (("Check", False), ("Watch", True)):
        service.method.add(
            name=method,
            input_type=".grpc.health.v1.HealthCheckRequest",
            output_type=".grpc.health.v1.HealthCheckResponse",
            server_streaming=streams,
        )
    return bytes(file.SerializeToString())


def reflection(version: str) -> bytes:
    """``grpc.reflection`` of that version, ``v1`` or ``v1alpha``."""
    package = f"grpc.reflection.{version}"
    file = _file(package, f"grpc/reflection/{version}/reflection.proto", _REFLECTION)
    file.service.add(name="ServerReflection").method.add(
        name="ServerReflectionInfo",
        input_type=f".{package}.ServerReflectionRequest",
        output_type=f".{package}.ServerReflectionResponse",
        client_streaming=True,
        server_streaming=True,
    )
    return bytes(file.SerializeToString())


def _file(package: str, name: str, messages: Mapping[str, Mapping[str, tuple[int, str]]]) -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")
    for title, fields in messages.items():
        message = file.message_type.add(name=title)
        if any(kind.startswith(_ONE_OF) for _, kind in fields.values()):
            message.oneof_decl.add(name="message_request" if title.endswith("Request") else "message_response")
        for said, (number, kind) in fields.items():
            label = _Field.LABEL_REPEATED if kind.startswith(_MANY) else _Field.LABEL_OPTIONAL
            field = message.field.add(name=said, number=number, label=label)
            if kind.startswith(_ONE_OF):
                field.oneof_index = 0
            bare = kind.removeprefix(_ONE_OF).removeprefix(_MANY)
            if bare in _KINDS:
                field.type = _KINDS[bare]
            elif bare == "ServingStatus":
                field.type, field.type_name = _Field.TYPE_ENUM, f".{package}.{title}.{bare}"
            else:
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{bare}"
    return file
