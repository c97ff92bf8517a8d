"""TLS and mutual TLS on the public port."""

import subprocess

import grpc
import pytest
from calls import error_of, generate, text_request
from certificates import Authority
from contract import generation_pb2_grpc
from hanmo_server import BIN, clean_environment
from observe import until


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


def credentials(authority, client=None):
    key, certificate = (path.read_bytes() for path in client) if client else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)


def tls_options(authority, name="server"):
    key, certificate = authority.issue(name)
    return f"--tls-cert={certificate}", f"--tls-key={key}"


def refused(server, channel_credentials):
    """The error of a call with other credentials."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    with (
        grpc.secure_channel(server.address, channel_credentials, options=options)
        if channel_credentials
        else grpc.insecure_channel(server.address)
    ) as channel:
        stub = generation_pb2_grpc.GenerationStub(channel)
        error = error_of(stub.Generate, text_request(max_tokens=1), timeout=20)
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        return error


def test_tls(start_server, authority, tmp_path):
    server = start_server(*tls_options(authority), credentials=credentials(authority))
    assert generate(server, text_request(max_tokens=2)).outputs
    refused(server, None)
    refused(server, credentials(Authority(tmp_path / "other")))


def test_mutual_tls(start_server, authority, tmp_path):
    client = authority.issue("client")
    server = start_server(
        *tls_options(authority),
        f"--tls-client-ca={authority.certificate}",
        credentials=credentials(authority, client),
    )
    assert generate(server, text_request(max_tokens=2)).outputs
    refused(server, credentials(authority))
    stranger = Authority(tmp_path / "other").issue("client")
    refused(server, credentials(authority, stranger))
    refused(server, None)
    assert generate(server, text_request(max_tokens=2)).outputs


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-cert=CERT"], "--tls-cert and --tls-key"),
        (["--tls-client-ca=CERT"], "--tls-client-ca"),
        (["--tls-cert=/nowhere.pem", "--tls-key=KEY"], "--tls-cert"),
        (["--tls-cert=CERT", "--tls-key=/nowhere.key"], "--tls-key"),
    ],
)
def test_what_cannot_be_read_is_named(authority, demo_repository, options, words):
    key, certificate = authority.issue("server")
    options = [o.replace("CERT", str(certificate)).replace("KEY", str(key)) for o in options]
    done = subprocess.run(
        [
            BIN / "hanmo-server",
            "--listen=127.0.0.1:0",
            "--metrics-listen=",
            f"--model-repository={demo_repository}",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode in (64, 69) and words in done.stderr, done


@pytest.mark.long
def test_a_new_certificate_is_taken_without_a_restart(start_server, authority, tmp_path):
    """Renewed files are served within the refresh interval; calls under way do not notice."""
    key, certificate = authority.issue("rotating")
    server = start_server(
        f"--tls-cert={certificate}", f"--tls-key={key}", credentials=credentials(authority)
    )
    renewed = Authority(tmp_path / "renewed")
    new_key, new_certificate = renewed.issue("rotating")
    key.write_bytes(new_key.read_bytes())
    certificate.write_bytes(new_certificate.read_bytes())

    def served_anew():
        with grpc.secure_channel(
            server.address, credentials(renewed), options=(("grpc.use_local_subchannel_pool", 1),)
        ) as channel:
            try:
                return generation_pb2_grpc.GenerationStub(channel).Generate(
                    text_request(max_tokens=1), timeout=5
                )
            except grpc.RpcError:
                return None

    assert until(served_anew, "the renewed certificate", patience=60)
