"""deploy/envoy before a real server: TLS, tokens, deadlines, and only what is meant for the outside."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
import yaml
from calls import POET, error_of, picture_request, text_request
from certificates import Authority
from chart import render, the
from contract import generation_pb2_grpc, models_pb2, models_pb2_grpc
from envoy import SOURCE, Envoy, Issuer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hanmo_server import NOT_SERVING, SERVING, Server
from observe import PATIENCE, until

CLAIMS = {"iss": "https://issuer.example", "aud": "hanmo", "exp": 4102444800}
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    one = Server(models, log=tmp_path_factory.mktemp("server") / "server.log").wait_serving()
    yield one
    one.close()


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer") / "keys")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def envoy(server, issuer, authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("envoy")
    upstream = server.address.replace("localhost", "127.0.0.1")
    one = Envoy(folder, upstream, authority.issue("envoy"), issuer.jwks())
    yield one
    one.close()


@pytest.fixture
def channel(envoy, authority):
    until(envoy.healthy, "a healthy upstream")
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    with grpc.secure_channel(envoy.address, credentials) as one:
        yield one


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def write(channel, **more):
    stub = generation_pb2_grpc.GenerationStub(channel)
    return stub.Generate(text_request(max_tokens=4, seed=1), timeout=PATIENCE, **more)


def test_a_token_lets_calls_through(channel, issuer, server):
    allowed = bearer(issuer.token(**CLAIMS))
    through = write(channel, metadata=allowed)
    direct = server.generation.Generate(text_request(max_tokens=4, seed=1), timeout=PATIENCE)
    assert through.model == POET and through.outputs == direct.outputs
    events = list(
        generation_pb2_grpc.GenerationStub(channel).GenerateStream(
            picture_request(preview_every_steps=1), metadata=allowed, timeout=PATIENCE
        )
    )
    assert events[-1].WhichOneof("event") == "final"
    models = models_pb2_grpc.ModelsStub(channel).ListModels(
        models_pb2.ListModelsRequest(), metadata=allowed, timeout=PATIENCE
    )
    assert POET in [model.name for model in models.models]


def test_without_a_valid_token_nothing_passes(channel, issuer, tmp_path):
    stranger = Issuer(tmp_path / "stranger")
    wrong = {
        "none": (),
        "noise": bearer("a.b.c"),
        "stranger": bearer(stranger.token(**CLAIMS)),
        "expired": bearer(issuer.token(**CLAIMS | {"exp": 1})),
        "endless": bearer(issuer.token(iss=CLAIMS["iss"], aud=CLAIMS["aud"])),
        "other issuer": bearer(issuer.token(**CLAIMS | {"iss": "https://other.example"})),
    }
    for name, metadata in wrong.items():
        assert error_of(write, channel, metadata=metadata).code() == UNAUTHENTICATED, name
    other = bearer(issuer.token(**CLAIMS | {"aud": "other"}))
    code = error_of(write, channel, metadata=other).code()
    assert code in (UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


def test_health_is_open_and_reflection_is_not_there(channel, issuer):
    request = health_pb2.HealthCheckRequest(service="readiness")
    assert health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE).status == SERVING
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    answers = stub.ServerReflectionInfo(
        asked, metadata=bearer(issuer.token(**CLAIMS)), timeout=PATIENCE
    )
    assert error_of(list, answers).code() == grpc.StatusCode.UNIMPLEMENTED


def ended_early(server):
    """Requests that the server refused or ended for want of time, or because their call was gone."""
    now = server.metrics()
    names = ("hanmo_rejected_total", "hanmo_deadline_missed_total", "hanmo_cancelled_total")
    return sum(now.sum(name) for name in names)


def test_the_deadline_of_a_call_reaches_the_server(channel, issuer, server):
    before = ended_early(server)
    stub = generation_pb2_grpc.GenerationStub(channel)
    request = picture_request(steps=900, width=256, height=256)
    error = error_of(stub.Generate, request, metadata=bearer(issuer.token(**CLAIMS)), timeout=2)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_idle()
    assert ended_early(server) == before + 1


def test_plaintext_is_refused(envoy, issuer):
    with grpc.insecure_channel(envoy.address) as plain:
        error = error_of(write, plain, metadata=bearer(issuer.token(**CLAIMS)))
    assert error.code() == grpc.StatusCode.UNAVAILABLE


def test_envoy_has_nothing_to_complain_about(envoy, channel):
    assert "[warning]" not in envoy.log_file.read_text()


class Full(health_pb2_grpc.HealthServicer, generation_pb2_grpc.GenerationServicer):
    """A server with a full queue: not ready, and says when to try again."""

    def Check(self, request, context):
        return health_pb2.HealthCheckResponse(status=NOT_SERVING)

    def Generate(self, request, context):
        context.set_trailing_metadata((("grpc-retry-pushback-ms", "1500"),))
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")


def test_when_all_are_full_they_say_so_themselves(issuer, authority, tmp_path):
    full = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(Full(), full)
    generation_pb2_grpc.add_GenerationServicer_to_server(Full(), full)
    upstream = f"127.0.0.1:{full.add_insecure_port('127.0.0.1:0')}"
    full.start()
    envoy = Envoy(tmp_path, upstream, authority.issue("envoy"), issuer.jwks())
    try:
        until(envoy.unhealthy, "an upstream that failed its check")
        credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes())
        with grpc.secure_channel(envoy.address, credentials) as one:
            grpc.channel_ready_future(one).result(PATIENCE)
            error = error_of(write, one, metadata=bearer(issuer.token(**CLAIMS)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert ("grpc-retry-pushback-ms", "1500") in error.trailing_metadata()
    finally:
        envoy.close()
        full.stop(None)


def test_it_asks_for_the_pods_that_are_not_ready_too():
    """They are no addresses of the other Services, and Envoy could not tell a client anything."""
    clusters = yaml.safe_load((SOURCE / "envoy.yaml").read_text())["static_resources"]["clusters"]
    (cluster,) = clusters
    (place,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    asked = place["endpoint"]["address"]["socket_address"]
    service = the(render(release="hanmo"), "Service", asked["address"])["spec"]
    assert service["publishNotReadyAddresses"] is True
    assert service["ports"][0]["port"] == asked["port_value"]
    assert cluster["health_checks"][0]["grpc_health_check"] == {"service_name": "readiness"}
