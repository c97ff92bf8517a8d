"""deploy/image: the list of what an image is made of."""

import json
import re
import subprocess

from contract import ROOT


def test_the_sbom_names_packages_of_every_source(tmp_path):
    """Of a root with this machine's packages, which is a Debian, too."""
    dpkg = tmp_path / "var/lib/dpkg"
    for folder in (dpkg / "status.d", tmp_path / "usr/bin"):
        folder.mkdir(parents=True)
    (dpkg / "status").symlink_to("/var/lib/dpkg/status")
    (dpkg / "status.d/opentelemetry-cpp").write_text(
        "Package: opentelemetry-cpp\nVersion: 1.19.0-3~bpo12+1\nArchitecture: amd64\n"
        "Description: a library\n OpenTelemetry is\n .\n a framework.\n"
    )
    (tmp_path / "usr/bin/hanmo-gateway").touch()
    done = subprocess.run([ROOT / "deploy/image/sbom", tmp_path], capture_output=True, check=True)
    document = json.loads(done.stdout)
    versions = {}
    for package in document["packages"]:
        (reference,) = package["externalRefs"]
        kind = reference["referenceLocator"].split("/")[0]
        versions.setdefault((kind, package["name"]), set()).add(package["versionInfo"])
    installed = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Version}", "libgrpc++-dev"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert versions["pkg:deb", "libgrpc++-dev"] == {installed}
    assert versions["pkg:deb", "opentelemetry-cpp"] == {"1.19.0-3~bpo12+1"}
    pinned = (ROOT / "scripts/requirements/libtorch.txt").read_text()
    assert versions["pkg:pypi", "torch"] == {re.search(r"^torch==(\S+)", pinned, re.MULTILINE)[1]}
    assert versions["pkg:cargo", "tokenizers"] and versions["pkg:cargo", "minijinja"]
    (grpc,) = versions["pkg:golang", "google.golang.org/grpc"]
    assert f"google.golang.org/grpc {grpc}\n" in (ROOT / "gateway/go.mod").read_text()
    described = {one["relatedSpdxElement"] for one in document["relationships"]}
    assert described == {package["SPDXID"] for package in document["packages"]}
