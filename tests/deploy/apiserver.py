"""A real kube-apiserver on Debian's etcd, without any controller: what it accepts, it stores."""

import contextlib
import json
import os
import pathlib
import socket
import ssl
import subprocess
import urllib.error
import urllib.request

from contract import ROOT
from observe import PATIENCE, until

PROGRAMS = pathlib.Path(os.environ.get("HANMO_APISERVER", ROOT / ".deps/apiserver"))
NAMES = ("etcd", "kube-apiserver")
TOKEN = "of-this-test-alone"


def missing():
    return [name for name in NAMES if not (PROGRAMS / name).exists()]


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Refused(Exception):
    """The server's answer to an object that it does not take."""


class ApiServer:
    """Answers when the constructor returns."""

    def __init__(self, folder):
        self._folder = folder
        self._resources = {}
        self._processes = []
        etcd, peer, port = (_free_port() for _ in range(3))
        self._url = f"https://127.0.0.1:{port}"
        key = folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        self._start(
            "etcd",
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder}/certificates",
            f"--token-auth-file={folder}/tokens.csv",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            # Nobody here makes the accounts of namespaces.
            "--disable-admission-plugins=ServiceAccount",
        )
        until(self._ready, "a ready kube-apiserver")

    def _start(self, name, *arguments):
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([PROGRAMS / name, *arguments], stdout=log, stderr=log)
        self._processes.append(process)

    def _ready(self):
        assert all(process.poll() is None for process in self._processes), self.log()
        with contextlib.suppress(OSError):
            return self._open("GET", "/readyz") == "ok"

    def log(self):
        return "\n".join((self._folder / f"{name}.log").read_text()[-4000:] for name in NAMES)

    def close(self):
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=PATIENCE)

    def _open(self, method, path, body=None):
        request = urllib.request.Request(self._url + path, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        # It made its certificate a moment ago.
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(request, timeout=PATIENCE, context=context) as reply:
            return reply.read().decode()

    def call(self, method, path, body=None):
        """The answer's JSON; Refused with the server's message."""
        try:
            return json.loads(self._open(method, path, body))
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())["message"]) from None

    def _path(self, one, namespace):
        version = one["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, one["kind"]) not in self._resources:
            for resource in self.call("GET", root)["resources"]:
                if "/" not in resource["name"]:
                    self._resources[version, resource["kind"]] = resource
        resource = self._resources[version, one["kind"]]
        middle = f"/namespaces/{namespace}" if resource["namespaced"] else ""
        return f"{root}{middle}/{resource['name']}"

    def create(self, one, namespace="default"):
        """What the server made of the object. A field that it does not know is an error."""
        path = self._path(one, namespace)
        return self.call("POST", f"{path}?fieldValidation=Strict", one)

    def delete(self, one, namespace="default"):
        self.call("DELETE", f"{self._path(one, namespace)}/{one['metadata']['name']}")

    def define(self, definition):
        """Knows the kind of a CustomResourceDefinition from now on."""
        made = self.create(definition)
        name, spec = made["metadata"]["name"], made["spec"]

        def established():
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
            found = self.call("GET", path).get("status", {}).get("conditions") or ()
            return any(c["type"] == "Established" and c["status"] == "True" for c in found)

        def served():
            with contextlib.suppress(Refused):
                versions = [v["name"] for v in spec["versions"] if v["served"]]
                path = f"/apis/{spec['group']}/{versions[0]}"
                kinds = {resource["kind"] for resource in self.call("GET", path)["resources"]}
                return spec["names"]["kind"] in kinds

        until(established, f"{name} established")
        until(served, f"{name} served")
