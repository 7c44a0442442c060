"""KServe's v2 protocol over gRPC: messages enter as bytes, Triton's own answers leave, byte for byte."""

from modelium.gateway.kserve_grpc.front import GrpcFront

__all__ = ["GrpcFront"]
