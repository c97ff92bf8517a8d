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


@pytest.fixture
def hanmo(server):
    """Runs the program against the shared server."""
    if not (BIN / "hanmo").exists():
        pytest.fail(f"{BIN} lacks hanmo")

    def run(command, *arguments, address=None, **options):
        line = [BIN / "hanmo", command, "--server", address or server.address, *arguments]
        return subprocess.run(
            list(map(str, line)),
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
    with subprocess.Popen(
        [
            BIN / "hanmo",
            "image",
            "--server",
            server.address,
            "--model",
            PAINTER,
            "--prompt",
            LANDSCAPE,
            "--steps",
            "20",
            "--output",
            tmp_path / "x.png",
        ],
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
    program = subprocess.Popen(
        [
            BIN / "hanmo",
            "image",
            "--server",
            server.address,
            "--model",
            PAINTER,
            "--prompt",
            LANDSCAPE,
            "--steps",
            "900",
            "--width",
            "256",
            "--height",
            "256",
            "--output",
            tmp_path / "x.png",
        ],
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


def bench(server, kind, *arguments):
    done = subprocess.run(
        [BIN / "hanmo", "bench", kind, "--server", server.address, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == DONE, done.stderr
    return json.loads(done.stdout)


def test_bench_measures_what_the_server_does(start_server, tmp_path):
    server = start_server()
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("明月\n秋山\n")
    told = bench(
        server, "text", "--model", POET, "--prompts", prompts, "--max-tokens", 8, "--ignore-eos",
        "--rate", 20, "--duration", "1s", "--warmup", "100ms", "--slo", "60s",
    )  # fmt: skip
    assert told["sent"] == told["ok"] > 0 and told["failed"] == {} and told["within_slo"] == 1
    assert told["tokens_per_s"] == pytest.approx(8 * told["requests_per_s"])
    latency, first, gap = (told[f"{x}_s"] for x in ("latency", "first_token", "inter_token"))
    assert 0 < first["mean"] < latency["mean"]
    assert 0 < gap["mean"] < latency["mean"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    # The warm-up is the server's business, too.
    assert server.metrics().sum("hanmo_requests_total", code="OK", model=POET) >= told["ok"]
    told = bench(
        server, "image", "--model", PAINTER, "--prompt", LANDSCAPE, "--steps", 2, "--sampler", "ddim", "--width", 64,
        "--height", 64, "--rate", "max", "--concurrency", 2, "--duration", "500ms",
    )  # fmt: skip
    assert told["ok"] == server.metrics().sum("hanmo_pictures_total") > 0
    assert told["steps_per_s"] == pytest.approx(2 * told["pictures_per_s"])
    server.wait_idle()


def test_top_shows_the_load(start_server):
    server = start_server()
    top = [BIN / "hanmo", "top", "--metrics", server.metrics_address, "--interval", "200ms"]
    with subprocess.Popen(
        [*top, "--json"], stdout=subprocess.PIPE, text=True, env=clean_environment()
    ) as program:
        generate(server, text_request(max_tokens=20, ignore_eos=True))
        tokens = 0
        for line in program.stdout:
            view = json.loads(line)
            models = {model["name"]: model for model in view["models"]}
            assert models[POET]["state"] == models[PAINTER]["state"] == "ready"
            assert [worker["up"] for worker in view["workers"]] == [True]
            # The counter may have grown before the first reading.
            tokens += models[POET]["tokens_per_s"] * view["seconds"]
            if tokens:
                break
            generate(server, text_request(max_tokens=20, ignore_eos=True))
        assert tokens == pytest.approx(20)
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == DONE
    shown = subprocess.run([*top, "--once"], capture_output=True, text=True, timeout=60, check=True)
    assert POET in shown.stdout and "KV PAGES" in shown.stdout and "\x1b" not in shown.stdout


def test_top_redraws_on_a_terminal_and_leaves_it_as_it_was(server):
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [BIN / "hanmo", "top", "--metrics", server.metrics_address, "--interval", "50ms"],
        stdout=theirs,
        stderr=theirs,
        env=clean_environment(TERM="xterm"),
    ) as program:
        os.close(theirs)
        shown = b""
        while shown.count(b"MODEL") < 3:
            shown += os.read(ours, 4096)
        program.send_signal(signal.SIGINT)
        while b"\x1b[?1049l" not in shown:
            shown += os.read(ours, 4096)
        assert program.wait(30) == DONE
    os.close(ours)
    assert shown.startswith(b"\x1b[?1049h") and b"\x1b[2J" not in shown
