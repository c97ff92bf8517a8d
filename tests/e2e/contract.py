"""The contract as Python modules: those of the Python client."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "clients/python/src"))

from google.rpc import error_details_pb2, status_pb2  # noqa: E402
from hanmo.v1 import (  # noqa: E402
    admin_pb2,
    admin_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
)

__all__ = (
    "ROOT",
    "admin_pb2",
    "admin_pb2_grpc",
    "error_details_pb2",
    "generation_pb2",
    "generation_pb2_grpc",
    "models_pb2",
    "models_pb2_grpc",
    "status_pb2",
)
