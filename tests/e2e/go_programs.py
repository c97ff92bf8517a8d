"""Go and the programs written in it that scripts/setup installs."""

import os
import shutil
import subprocess

from contract import ROOT
from hanmo_server import clean_environment
from observe import PATIENCE

FOLDER = ROOT / ".deps/go"


def run(*command, status=0, **options):
    """What the program wrote to stdout; it must end with `status`."""
    done = subprocess.run(
        list(map(str, command)),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stdout + done.stderr


def tool(name):
    found = FOLDER / "bin" / name
    assert found.exists(), f"no {found}: scripts/setup installs it"
    return found


def build(module, package, program):
    """Compiles `package` of the Go module in the folder `module`; downloads nothing."""
    ours = ROOT / ".deps/venv/bin"
    go = shutil.which("go", path=f"{ours}{os.pathsep}{os.environ['PATH']}")
    assert go, "no go: scripts/setup installs it"
    subprocess.run(
        [go, "build", "-o", program, package],
        cwd=module,
        env=os.environ
        | {"GOPATH": str(FOLDER), "GOPROXY": "off", "GOTOOLCHAIN": "local"}
        | {"GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false"},
        check=True,
        timeout=5 * PATIENCE,
    )
    return program
