"""A real Envoy with deploy/envoy's files, whose paths and addresses are replaced, and tokens for it."""

import base64
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

from contract import ROOT
from observe import until

SOURCE = ROOT / "deploy/envoy"
ENVOY = f"{sys.prefix}/bin/envoy"


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _openssl(*arguments, **more):
    return subprocess.run(
        ["openssl", *map(str, arguments)], check=True, capture_output=True, **more
    ).stdout


class Issuer:
    """Signs tokens with a key of its own."""

    def __init__(self, folder):
        folder.mkdir()
        self.key = folder / "issuer.key"
        _openssl("genrsa", "-out", self.key, "2048")

    def jwks(self):
        modulus = _openssl("rsa", "-in", self.key, "-noout", "-modulus").decode().strip()
        number = bytes.fromhex(modulus.partition("=")[2])
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": _base64url(number)}
        return json.dumps({"keys": [key | {"e": "AQAB"}]})

    def token(self, **claims):
        parts = [{"alg": "RS256", "typ": "JWT", "kid": "1"}, claims]
        text = ".".join(_base64url(json.dumps(part).encode()) for part in parts)
        signature = _openssl("dgst", "-sha256", "-sign", self.key, input=text.encode())
        return f"{text}.{_base64url(signature)}"


class Envoy:
    """Listens when the constructor returns; calls go to `upstream`, which is HOST:PORT."""

    def __init__(self, folder, upstream, certificate, jwks):
        host, port = upstream.rsplit(":", 1)
        key, chain = certificate
        (folder / "tls").mkdir()
        (folder / "tls/tls.crt").write_text(chain.read_text())
        (folder / "tls/tls.key").write_text(key.read_text())
        (folder / "jwks.json").write_text(jwks)
        for name in ("envoy.yaml", "certificate.yaml"):
            text = (SOURCE / name).read_text().replace("/etc/envoy", str(folder))
            text = text.replace("0.0.0.0, port_value: 8443", "127.0.0.1, port_value: 0")
            text = text.replace("127.0.0.1, port_value: 9901", "127.0.0.1, port_value: 0")
            text = text.replace(
                "hanmo-headless-all, port_value: 8001", f"{host}, port_value: {port}"
            )
            (folder / name).write_text(text)
        self.log_file, admin = folder / "envoy.log", folder / "admin"
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    ENVOY,
                    "--disable-hot-restart",
                    *("--concurrency", "1"),
                    *("--config-path", folder / "envoy.yaml"),
                    *("--admin-address-path", admin),
                ],
                stdout=log,
                stderr=log,
            )
        try:
            until(
                lambda: self._alive() and admin.exists() and admin.read_text(), "Envoy's admin port"
            )
            self.admin = admin.read_text()
            self.address = until(self._listener, "Envoy's listener")
        except BaseException:
            self.close()
            raise

    def _alive(self):
        assert self.process.poll() is None, self.log_file.read_text()
        return True

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.admin}/{path}") as reply:
                return reply.read().decode()
        except urllib.error.URLError as error:
            raise AssertionError(self.log_file.read_text()) from error

    def _listener(self):
        self._alive()
        for one in json.loads(self.ask("listeners?format=json")).get("listener_statuses", []):
            address = one["local_address"]["socket_address"]
            return f"localhost:{address['port_value']}"
        return None

    def healthy(self):
        """Whether the upstream has passed its check."""
        return "health_flags::healthy" in self.ask("clusters")

    def unhealthy(self):
        """Whether the upstream has failed its check. Before its first one it counts as failed, too."""
        checked = re.search(r"health_check\.failure: [1-9]", self.ask("stats"))
        return checked and "/failed_active_hc" in self.ask("clusters")

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        print(self.log_file.read_text())
