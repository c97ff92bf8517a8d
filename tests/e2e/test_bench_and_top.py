"""hanmo bench measures a server, hanmo top shows what it is doing."""

import json
import os
import pty
import signal
import subprocess

import pytest
from calls import LANDSCAPE, PAINTER, POET, generate, text_request
from hanmo_server import BIN, clean_environment


def bench(server, kind, *arguments):
    done = subprocess.run(
        [BIN / "hanmo", "bench", kind, "--server", server.address, *map(str, arguments), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
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
        made, tokens, more = 0, 0, 3
        for line in program.stdout:
            view = json.loads(line)
            models = {model["name"]: model for model in view["models"]}
            assert models[POET]["state"] == models[PAINTER]["state"] == "ready"
            assert [worker["up"] for worker in view["workers"]] == [True]
            tokens += models[POET]["tokens_per_s"] * view["seconds"]
            if made < 3:
                generate(server, text_request(max_tokens=20, ignore_eos=True))
                made += 1
            elif tokens > 30:
                more -= 1
            if not more:
                break
        # The last one may not be counted yet.
        assert tokens in (pytest.approx(40), pytest.approx(60))
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 0
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
        assert program.wait(30) == 0
    os.close(ours)
    assert shown.startswith(b"\x1b[?1049h") and b"\x1b[2J" not in shown
