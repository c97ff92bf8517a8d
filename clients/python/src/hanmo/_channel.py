"""Where and how to connect; the same for both clients."""

import os
import pathlib
from dataclasses import dataclass
from typing import Any

import grpc

from hanmo._version import VERSION

# A final event holds whole texts: 16 of them with 20 log probabilities a token pass gRPC's 4 MiB.
MAX_MESSAGE_BYTES = 64 << 20
# Of the client, for all attempts of a call together, in seconds.
DEFAULT_TIMEOUT = 600.0


@dataclass(frozen=True)
class Tls:
    """PEM files of a connection with TLS. Without `ca` the system's certificates are trusted;
    `certificate` and `key`, which go together, are this client's, for mutual TLS."""

    ca: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    server_name: str | None = None
    """In the server's certificate, where it is not the host of the address."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key must be given together")


def default_target() -> str:
    return os.environ.get("HANMO_SERVER", "localhost:8001")


def credentials(tls: Tls | bool | grpc.ChannelCredentials) -> grpc.ChannelCredentials | None:
    """None: without TLS."""
    if tls is True:
        return grpc.ssl_channel_credentials()
    if isinstance(tls, Tls):
        read = [
            None if f is None else pathlib.Path(f).read_bytes()
            for f in (tls.ca, tls.key, tls.certificate)
        ]
        return grpc.ssl_channel_credentials(*read)
    return tls or None


def channel_options(
    target: str, tls: Tls | bool | grpc.ChannelCredentials
) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.primary_user_agent", f"hanmo-python/{VERSION}"),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Whoever waits for a server that starts wants to know soon after it has.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # Behind a headless Service of Kubernetes the name has an address per server.
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ]
    # gRPC would send calls to this machine through an http_proxy, which can't reach it.
    if target.startswith(("localhost:", "127.", "[::1]:")):
        options.append(("grpc.enable_http_proxy", 0))
    if isinstance(tls, Tls) and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options
