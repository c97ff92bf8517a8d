"""The server describes itself: tools need no .proto files."""

from calls import error_of
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICES = {
    "hanmo.v1.Generation",
    "hanmo.v1.Models",
    "grpc.health.v1.Health",
    "inference.GRPCInferenceService",
}


def test_services_and_messages_are_reflected(server):
    database = ProtoReflectionDescriptorDatabase(server.channel)
    assert SERVICES <= set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    methods = pool.FindServiceByName("hanmo.v1.Generation").methods_by_name
    assert set(methods) == {"Generate", "GenerateStream", "Tokenize", "Detokenize", "Cancel"}
    fields = pool.FindMessageTypeByName("hanmo.v1.PictureParameters").fields_by_name
    assert {"negative_prompt", "steps", "guidance", "seed", "sampler"} <= set(fields)
    assert not [name for name in database.get_services() if "worker" in name]


def test_reflection_can_be_switched_off(start_server):
    server = start_server("--reflection=false", serving=False)
    database = ProtoReflectionDescriptorDatabase(server.channel)
    assert "unimplemented" in str(error_of(database.get_services)).lower()
