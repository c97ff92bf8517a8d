"""hanmo, the command line, against the server."""

import json
import os
import pty
import signal
import subprocess

import pytest
from calls import (
    LANDSCAPE,
    PAINTER,
    POEM,
    POET,
    generate,
    paint,
    picture_request,
    pixels,
    text_request,
    write,
)
from contract import generation_pb2
from hanmo_server import BIN, clean_environment
from observe import until

DONE, USAGE, FILE, NOT_FOUND, UNAVAILABLE, TIMEOUT = range(6)
INTERRUPTED = 130


def command_line(address, command, *arguments):
    return list(map(str, [BIN / "hanmo", command, "--server", address, *arguments]))


@pytest.fixture
def hanmo(server):
    """Runs the program against the shared server."""
    if not (BIN / "hanmo").exists():
        pytest.fail(f"{BIN} lacks hanmo")

    def run(command, *arguments, address=None, **options):
        return subprocess.run(
            command_line(address or server.address, command, *arguments),
            capture_output=True,
            text=True,
            timeout=120,
            env=clean_environment(),
            check=False,
            **options,
        )

    return run


def test_image_writes_the_picture_of_the_request(hanmo, server, tmp_path):
    file = tmp_path / "picture.png"
    done = hanmo(
        "image",
        "--model",
        PAINTER,
        "--prompt",
        LANDSCAPE,
        "--negative-prompt",
        "飞鸟",
        "--seed",
        7,
        "--steps",
        5,
        "--guidance",
        3.5,
        "--width",
        96,
        "--height",
        64,
        "--sampler",
        "euler_a",
        "--output",
        file,
    )
    assert done.returncode == DONE, done.stderr
    assert "\x1b" not in done.stdout + done.stderr  # no terminal, plain lines
    expected = paint(
        server,
        picture_request(
            negative_prompt="飞鸟",
            seed=7,
            steps=5,
            guidance=3.5,
            width=96,
            height=64,
            sampler="euler_a",
        ),
    )
    assert file.read_bytes() == expected.data
    assert pixels(file.read_bytes()).shape == (64, 96, 3)


def test_image_tells_json_and_counts(hanmo, server, tmp_path):
    done = hanmo(
        "image",
        "--model",
        PAINTER,
        "--prompt",
        LANDSCAPE,
        "--steps",
        2,
        "--width",
        64,
        "--height",
        64,
        "--seed",
        20,
        "--count",
        3,
        "--json",
        "--output",
        tmp_path / "p-{seed}.webp",
    )
    assert done.returncode == DONE, done.stderr
    told = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) == 1
    assert told["usage"]["pictures"] == 3
    for seed in (20, 21, 22):
        expected = paint(
            server, picture_request(steps=2, seed=seed, format=generation_pb2.PICTURE_FORMAT_WEBP)
        )
        assert (tmp_path / f"p-{seed}.webp").read_bytes() == expected.data


def test_text_prints_the_text(hanmo, server):
    expected = write(
        server, text_request(POEM + "\n", seed=3, max_tokens=40, temperature=0.7, top_k=50)
    )
    arguments = (
        "--model",
        POET,
        "--prompt",
        POEM + "\n",
        "--max-tokens",
        40,
        "--temperature",
        0.7,
        "--top-k",
        50,
        "--seed",
        3,
    )
    done = hanmo("text", *arguments)
    assert done.returncode == DONE, done.stderr
    assert expected.text in done.stdout
    told = json.loads(hanmo("text", *arguments, "--json").stdout)
    assert told["text"] == expected.text
    assert told["token_ids"] == list(expected.token_ids)
    assert told["finish_reason"] in ("eos", "length")
    assert told["usage"]["completion_tokens"] == len(expected.token_ids)


def test_temperature_0_is_greedy(hanmo, server):
    greedy = write(server, text_request("春晓\n", temperature=0, max_tokens=30))
    for seed in (1, 2):
        told = json.loads(
            hanmo(
                "text",
                "--model",
                POET,
                "--prompt",
                "春晓\n",
                "--temperature",
                0,
                "--max-tokens",
                30,
                "--seed",
                seed,
                "--json",
            ).stdout
        )
        assert told["text"] == greedy.text


def test_the_prompt_may_come_from_stdin(hanmo, server):
    greedy = write(server, text_request("春晓\n", temperature=0, max_tokens=10))
    done = hanmo(
        "text",
        "--model",
        POET,
        "--prompt",
        "-",
        "--temperature",
        0,
        "--max-tokens",
        10,
        "--json",
        input="春晓\n",
    )
    told = json.loads(done.stdout)
    assert told["text"] == greedy.text or told["usage"]["prompt_tokens"] > 0


def test_models_and_health(hanmo):
    done = hanmo("models")
    assert done.returncode == DONE and PAINTER in done.stdout and POET in done.stdout
    told = json.loads(hanmo("models", "--json").stdout)
    states = {model["name"]: model["state"] for model in told["models"]}
    assert states[PAINTER] == states[POET] == "ready"
    assert hanmo("health").returncode == DONE
    assert json.loads(hanmo("health", "--json", PAINTER).stdout)["status"] == "SERVING"
    assert hanmo("health", "nothing").returncode == NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["text", "--model", "nobody", "--prompt", "x"], NOT_FOUND, "nobody"),
        (["text", "--model", POET, "--prompt", "x", "--max-tokens", "9999"], USAGE, "--max-tokens"),
        (["text", "--model", POET], USAGE, "prompt"),
        (
            ["image", "--model", PAINTER, "--prompt", "x", "--width", "100", "--output", "x.png"],
            USAGE,
            "--width",
        ),
        (
            [
                "image",
                "--model",
                PAINTER,
                "--prompt",
                "x",
                "--sampler",
                "heun",
                "--output",
                "x.png",
            ],
            USAGE,
            "heun",
        ),
        (
            ["image", "--model", PAINTER, "--prompt", "x", "--output", "/nowhere/x.png"],
            FILE,
            "/nowhere",
        ),
        (
            [
                "image",
                "--model",
                PAINTER,
                "--prompt",
                "x",
                "--steps",
                "900",
                "--timeout",
                "300ms",
                "--output",
                "x.png",
            ],
            TIMEOUT,
            "",
        ),
        (["text", "--no-such-flag"], USAGE, "no-such-flag"),
    ],
)
def test_exit_codes_tell_what_went_wrong(hanmo, tmp_path, arguments, code, words):
    done = hanmo(*arguments, cwd=tmp_path)
    assert done.returncode == code, done
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there(hanmo):
    done = hanmo("health", address="127.0.0.1:1")
    assert done.returncode == UNAVAILABLE and done.stderr


def test_a_terminal_sees_a_progress_bar(server, tmp_path):
    """stderr is a pseudo-terminal, stdout is not."""
    ours, theirs = pty.openpty()
    painting = ("--model", PAINTER, "--prompt", LANDSCAPE, "--steps", 20)
    with subprocess.Popen(
        command_line(server.address, "image", *painting, "--output", tmp_path / "x.png"),
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=clean_environment(TERM="xterm"),
    ) as program:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data
        assert program.wait(60) == 0
    os.close(ours)
    assert b"\r" in shown or b"\x1b[" in shown
    assert (tmp_path / "x.png").exists()


def test_interrupting_cancels_the_request(start_server, tmp_path):
    server = start_server()
    painting = ("--model", PAINTER, "--prompt", LANDSCAPE, "--steps", 900)
    large = ("--width", 256, "--height", 256)
    program = subprocess.Popen(
        command_line(server.address, "image", *painting, *large, "--output", tmp_path / "x.png"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    until(lambda: server.metrics().sum("hanmo_requests_running") == 1, "the request running")
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=30)
    assert program.returncode == INTERRUPTED
    server.wait_idle()
    assert server.metrics().sum("hanmo_cancelled_total") == 1
    assert not list(tmp_path.glob("*.png"))
    assert generate(server, text_request(max_tokens=2)).outputs
