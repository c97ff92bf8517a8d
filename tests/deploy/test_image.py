"""deploy/image: the list of what an image is made of."""

import json
import re
import subprocess

from contract import ROOT


def test_the_sbom_names_packages_of_every_source():
    """Of this machine, which is a Debian, too."""
    done = subprocess.run([ROOT / "deploy/image/sbom", "/"], capture_output=True, check=True)
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
    pinned = (ROOT / "scripts/requirements/libtorch.txt").read_text()
    assert versions["pkg:pypi", "torch"] == {re.search(r"^torch==(\S+)", pinned, re.MULTILINE)[1]}
    assert versions["pkg:cargo", "tokenizers"] and versions["pkg:cargo", "minijinja"]
    described = {one["relatedSpdxElement"] for one in document["relationships"]}
    assert described == {package["SPDXID"] for package in document["packages"]}
