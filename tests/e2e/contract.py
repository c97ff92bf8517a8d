"""The contract as Python modules, generated from proto/ into a temporary folder at import."""

import atexit
import importlib.resources
import pathlib
import shutil
import sys
import tempfile

from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = (
    "hanmo/v1/admin.proto",
    "hanmo/v1/generation.proto",
    "hanmo/v1/models.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
)


def _generate():
    folder = tempfile.mkdtemp(prefix="hanmo-contract-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    failed = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{well_known}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            *FILES,
        ]
    )
    if failed:
        raise RuntimeError("protoc could not read proto/")
    sys.path.append(folder)


_generate()

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
