"""Flags, environment, file and defaults of hanmo-server, as a user types them."""

import re
import socket
import subprocess

import pytest
from calls import generate, text_request
from hanmo_server import BIN, clean_environment

BAD_USAGE, CANNOT_START = 64, 69


def run(*arguments, environment=None):
    return subprocess.run(
        [BIN / "hanmo-server", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=clean_environment(**(environment or {})),
    )


def effective(*arguments, environment=None):
    """Option -> value as --print-config says."""
    done = run(*arguments, "--print-config", environment=environment)
    assert done.returncode == 0, done.stderr
    return {
        key: value.strip("\"'")
        for key, value in re.findall(r"^([a-z-]+): ?(.*)$", done.stdout, re.MULTILINE)
    }


def options():
    """(name, environment twin) of every option in --help."""
    text = run("--help").stdout
    return re.findall(
        r"^  --([a-z-]+) [A-Z:=\[\]]+\n(?:.*\n)*?.*(HANMO_[A-Z_]+)\]$", text, re.MULTILINE
    )


def test_help_is_grouped_and_complete():
    done = run("--help")
    assert done.returncode == 0 and not done.stderr
    groups = re.findall(r"^([A-Z].*):$", done.stdout, re.MULTILINE)
    assert groups == [
        "Network",
        "TLS of the gRPC port",
        "Models",
        "Workers",
        "Queue and batches",
        "Life cycle and logs",
    ]
    names = dict(options())
    for name in (
        "listen",
        "metrics-listen",
        "model-repository",
        "workers",
        "worker-threads",
        "devices",
        "dtype",
        "deterministic",
        "tls-cert",
        "tls-key",
        "tls-client-ca",
        "shutdown-delay",
        "shutdown-timeout",
        "max-queued-requests",
        "log-format",
    ):
        assert names[name] == "HANMO_" + name.upper().replace("-", "_")
    assert set(names) == set(effective())


def test_version():
    done = run("--version")
    assert done.returncode == 0 and re.fullmatch(r"hanmo-server \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("workers", ("2", "3", "4")),
        ("dtype", ("float32", "bfloat16", "float16")),
        ("max-parked", ("1s", "2s", "3s")),
        ("max-message-bytes", ("1MiB", "2MiB", "3MiB")),
        ("deterministic", ("true", "false", "true")),
        ("listen", ("a:1", "b:2", "c:3")),
        ("devices", ("cpu", "cuda:0", "cuda:1")),
    ],
)
def test_flag_before_environment_before_file_before_default(tmp_path, option, values):
    in_file, in_environment, as_flag = values
    config = tmp_path / "hanmo.yaml"
    config.write_text(f"{option}: {in_file}\n")
    twin = {"HANMO_" + option.upper().replace("-", "_"): in_environment}
    default = effective()[option]

    def value(*arguments, environment=None):
        return effective(*arguments, environment=environment)[option].strip("[]")

    assert value(f"--config={config}") == in_file
    assert value(environment={"HANMO_CONFIG": str(config)}) == in_file
    assert value(environment=twin) == in_environment
    assert value(f"--config={config}", environment=twin) == in_environment
    assert value(f"--{option}={as_flag}", f"--config={config}", environment=twin) == as_flag
    assert value(f"--{option}", as_flag) == as_flag
    assert effective()[option] == default


def test_the_printed_configuration_is_a_configuration(tmp_path):
    config = tmp_path / "printed.yaml"
    config.write_text(run("--workers=3", "--devices=cpu,cuda:1", "--print-config").stdout)
    assert effective(f"--config={config}") == effective("--workers=3", "--devices=cpu,cuda:1")


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--no-such-option=1"], {}, ["--no-such-option", "unknown option"]),
        (["stray"], {}, ["stray"]),
        (["--workers"], {}, ["--workers", "needs a value"]),
        (["--workers=0"], {}, ["--workers", "1 to 64"]),
        (["--workers=x"], {}, ["--workers", "1 to 64"]),
        (["--workers=-1"], {}, ["--workers", "1 to 64"]),
        (["--dtype=int8"], {}, ["--dtype", "float32", "bfloat16"]),
        (["--max-parked=5"], {}, ["--max-parked", "time"]),
        (["--max-message-bytes=1"], {}, ["--max-message-bytes", "64KiB"]),
        (["--deterministic=maybe"], {}, ["--deterministic", "one of auto, true, false"]),
        (["--devices=gpu"], {}, ["--devices", "cuda:N"]),
        (["--devices="], {}, ["--devices"]),
        (["--listen="], {}, ["--listen"]),
        (["--tls-cert=x"], {}, ["--tls-cert and --tls-key"]),
        ([], {"HANMO_NO_SUCH": "1"}, ["HANMO_NO_SUCH", "unknown option"]),
        ([], {"HANMO_WORKERS": "99"}, ["HANMO_WORKERS", "1 to 64"]),
        (["--config=/nowhere.yaml"], {}, ["--config", "/nowhere.yaml"]),
    ],
)
def test_mistakes_are_named(demo_repository, arguments, environment, words):
    done = run(f"--model-repository={demo_repository}", *arguments, environment=environment)
    assert done.returncode == BAD_USAGE and not done.stdout
    for word in words:
        assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers: 2\nno-such: 1\n", [":2:", "no-such", "unknown option"]),
        ("workers: 2\nworkers: 3\n", ["workers", "twice"]),
        ("workers: [1, 2]\n", ["workers", "one value"]),
        ("- workers\n", ["map"]),
        ("workers: {", ["config.yaml"]),
        ("workers: 0", [":1:", "1 to 64"]),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path, text, words):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    done = run(f"--config={config}", "--model-repository=x")
    assert done.returncode == BAD_USAGE
    for word in words:
        assert word in done.stderr


def test_kubernetes_service_links_are_no_options():
    links = {
        "HANMO_SERVICE_HOST": "10.0.0.1",
        "HANMO_PORT": "tcp://10.0.0.1:8001",
        "HANMO_PORT_8001_TCP_ADDR": "10.0.0.1",
        "HANMO_METRICS_SERVICE_PORT": "8002",
    }
    assert effective(environment=links) == effective()


def test_what_cannot_be_started_is_named(tmp_path, demo_repository):
    done = run("--model-repository=/nowhere")
    assert done.returncode == CANNOT_START and "/nowhere" in done.stderr
    assert run().returncode == BAD_USAGE
    done = run(
        f"--model-repository={demo_repository}",
        "--listen=127.0.0.1:0",
        "--metrics-listen=",
        "--worker-program=/nowhere/worker",
    )
    assert done.returncode == CANNOT_START and "/nowhere/worker" in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for option, other in (
            ("--listen", "--metrics-listen="),
            ("--metrics-listen", "--listen=127.0.0.1:0"),
        ):
            done = run(f"--model-repository={demo_repository}", f"{option}={address}", other)
            assert done.returncode == CANNOT_START
            assert option in done.stderr and address in done.stderr


def test_one_models_folder_is_a_repository(start_server, demo_repository):
    server = start_server(repository=(demo_repository / "wenzhong-gpt2-tiny").resolve())
    assert generate(server, text_request(max_tokens=2)).model == "wenzhong-gpt2-tiny"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_number_formats_serve(start_server, dtype):
    server = start_server(f"--dtype={dtype}")
    assert server.describe("wenzhong-gpt2-tiny").dtype == dtype
    full = start_server("--dtype=float32")
    ours, exact = (
        generate(one, text_request(temperature=0, max_tokens=8, logprobs=0)).outputs[0].text
        for one in (server, full)
    )
    assert ours.logprobs[0].logprob == pytest.approx(exact.logprobs[0].logprob, abs=0.1)
