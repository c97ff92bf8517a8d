"""What Prometheus sees, with the real Prometheus."""

import json
import re
import urllib.error
import urllib.request

import pytest
from calls import PAINTER, POET, error_of, generate, picture_request, stream, text_request
from contract import ROOT, models_pb2
from hanmo_server import NOT_SERVING, SERVING
from observe import until
from prometheus import scraping

# The names that dashboards are built on.
HISTOGRAMS = {
    "hanmo_queue_seconds",
    "hanmo_tokenize_seconds",
    "hanmo_text_encode_seconds",
    "hanmo_prefill_seconds",
    "hanmo_step_seconds",
    "hanmo_vae_decode_seconds",
    "hanmo_picture_encode_seconds",
    "hanmo_send_seconds",
    "hanmo_time_to_first_token_seconds",
    "hanmo_inter_token_seconds",
    "hanmo_request_seconds",
    "hanmo_batch_size",
}
OTHERS = {
    "hanmo_requests_waiting",
    "hanmo_requests_running",
    "hanmo_requests_total",
    "hanmo_rejected_total",
    "hanmo_cancelled_total",
    "hanmo_deadline_missed_total",
    "hanmo_worker_restarts_total",
    "hanmo_device_memory_used_bytes",
    "hanmo_worker_up",
    "hanmo_model_state",
    "hanmo_build_info",
    "hanmo_pictures_total",
    "hanmo_completion_tokens_total",
}


@pytest.fixture(scope="module")
def used(demo_repository, tmp_path_factory):
    """A server that has done some of everything."""
    from hanmo_server import Server

    one = Server(demo_repository, log=tmp_path_factory.mktemp("used") / "server.log").wait_serving()
    stream(one, text_request(seed=1, max_tokens=30, ignore_eos=True))
    stream(one, picture_request(seed=1, count=2))
    error_of(generate, one, text_request(n=99))
    yield one
    one.close()


def test_a_server_without_metrics_serves_and_knows_its_load(start_server):
    server = start_server("--max-queued-requests=2", "--max-running-samples=1", metrics=False)
    generate(server, text_request(seed=1, max_tokens=5))
    stream(server, picture_request(seed=1, preview_every_steps=1))
    error_of(generate, server, text_request(model="nobody"))
    # What the server itself goes by is counted all the same.
    until(lambda: server.describe(PAINTER).step_costs, "learned costs")
    calls = [
        server.generation.Generate.future(picture_request(steps=100), timeout=60) for _ in range(3)
    ]
    until(lambda: server.check("readiness") == NOT_SERVING, "a full queue")
    for call in calls:
        call.cancel()
    until(lambda: server.check("readiness") == SERVING, "a queue with room")
    server.terminate()
    assert server.wait_exit() == 0


def test_the_figures_are_true(start_server):
    server = start_server()
    text = generate(server, text_request(seed=1, n=2, max_tokens=25, ignore_eos=True))
    generate(server, picture_request(seed=1, steps=7, count=3, sampler="ddim"))
    error_of(generate, server, picture_request(steps=0))
    error_of(generate, server, text_request(model="nobody"))
    server.wait_idle()
    m = server.metrics()
    assert m.sum("hanmo_requests_total", model=POET, code="OK", task="text") == 1
    assert m.sum("hanmo_requests_total", model=PAINTER, code="OK", task="picture") == 1
    assert m.sum("hanmo_requests_total", model=PAINTER, code="INVALID_ARGUMENT") == 1
    assert m.sum("hanmo_requests_total", code="NOT_FOUND") == 1
    assert m.sum("hanmo_requests_total") == 4
    assert m.sum("hanmo_rejected_total", reason="invalid") == 2
    assert m.sum("hanmo_completion_tokens_total") == 50 == text.usage.completion_tokens
    assert m.sum("hanmo_prompt_tokens_total", model=POET) == text.usage.prompt_tokens > 0
    assert m.sum("hanmo_pictures_total") == 3
    assert m.sum("hanmo_steps_total") == 21
    assert m.sum("hanmo_batch_size_sum", step="denoise") == 21
    assert m.sum("hanmo_batch_size_sum", step="vae_decode") == 3
    assert m.sum("hanmo_picture_encode_seconds_count") == 3
    assert m.sum("hanmo_time_to_first_token_seconds_count") == 2
    assert m.sum("hanmo_inter_token_seconds_count") == 48
    assert m.sum("hanmo_queue_seconds_count") == 2
    assert m.sum("hanmo_request_seconds_count", model=PAINTER) == 2
    assert m.sum("hanmo_send_seconds_count") == 2
    assert m.sum("hanmo_worker_up") == 1
    assert m.sum("hanmo_device_memory_used_bytes") > 4 << 20
    assert m.sum("hanmo_model_load_seconds", model=PAINTER) > 0
    for name in (
        "hanmo_cancelled_total",
        "hanmo_deadline_missed_total",
        "hanmo_worker_restarts_total",
        "hanmo_steps_redone_total",
        "hanmo_steps_wasted_total",
        "hanmo_previews_dropped_total",
        "hanmo_expert_wait_seconds_total",
    ):
        assert m.series(name) and m.sum(name) == 0


def test_what_steps_cost_is_told(start_server):
    """The same on /metrics and in DescribeModel, and about what the steps took."""
    server = start_server()

    def costs(name):
        reply = server.models.DescribeModel(models_pb2.DescribeModelRequest(name=name))
        return {(c.kind, c.width, c.height): c for c in reply.step_costs}

    assert not costs(PAINTER) and not server.metrics().series("hanmo_step_cost_seconds")
    generate(server, picture_request(seed=1, steps=20, sampler="ddim"))
    generate(server, text_request(seed=1, max_tokens=30, ignore_eos=True))
    generate(
        server, picture_request(seed=1, steps=60, sampler="ddim")
    )  # told once a second at most
    until(lambda: len(costs(PAINTER)) == 3 and costs(POET), "the costs told")
    cost = costs(PAINTER)[models_pb2.STEP_KIND_DENOISE, 64, 64]
    seconds = cost.one_row.seconds + 1e-9 * cost.one_row.nanos
    m = server.metrics()
    measured = m.sum("hanmo_step_seconds_sum", model=PAINTER) / 80
    assert 0.1 * measured < seconds < 10 * measured
    assert cost.knee_rows >= 1 and 1 < cost.steps <= 80
    told = {"model": PAINTER, "step": "denoise", "size": "64x64"}
    assert 0.1 * measured < m.sum("hanmo_step_cost_seconds", rows="1", **told) < 10 * measured
    assert m.sum("hanmo_step_knee_rows", **told) >= 1
    assert cost.knee_bytes >= cost.one_row_bytes > 100_000
    assert m.sum("hanmo_step_cost_bytes", rows="knee", **told) == cost.knee_bytes
    assert m.sum("hanmo_device_idle_seconds_total") > 0


def test_steps_of_the_cancelled_are_wasted(start_server):
    server = start_server()
    call = server.generation.GenerateStream(picture_request(steps=900), timeout=60)
    next(event for event in call if event.HasField("step") and event.step.step >= 3)
    call.cancel()
    server.wait_idle()
    m = server.metrics()
    assert m.sum("hanmo_steps_wasted_total") == m.sum("hanmo_steps_total") >= 3


def test_every_series_names_a_model_that_exists(used):
    for labels, _ in used.metrics().series("hanmo_requests_total"):
        assert labels["model"] in (PAINTER, POET, "")


def test_vllms_names_on_demand(used, start_server):
    assert "vllm:" not in used.metrics().text
    server = start_server("--vllm-metrics=true")
    generate(server, text_request(seed=1, n=2, max_tokens=25, ignore_eos=True))
    server.wait_idle()
    m = server.metrics()
    told = {"model_name": POET}
    assert m.sum("vllm:generation_tokens_total", **told) == 50
    assert m.sum("vllm:time_to_first_token_seconds_count", **told) == 2
    assert m.sum("vllm:inter_token_latency_seconds_count", **told) == 48
    assert m.sum("vllm:request_time_per_output_token_seconds_count", **told) == 2
    assert m.sum("vllm:e2e_request_latency_seconds_count", **told) == 1
    assert m.sum("vllm:request_success_total", finished_reason="length", **told) == 2
    told_of = set(re.findall(r"vllm:[a-z0-9_]+", (ROOT / "docs/metrics.md").read_text()))
    assert told_of == {name for name in m.names() if name.startswith("vllm:")}
    for name in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"):
        assert m.series(f"vllm:{name}", **told)


def test_other_paths_and_methods(used):
    for path in ("/", "/nothing", "/metrics/../etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"http://{used.metrics_address}{path}", timeout=10)
        assert error.value.code == 404


@pytest.fixture
def prometheus(used, tmp_path):
    """Queries of a Prometheus that scrapes `used`."""
    with scraping(tmp_path, used.metrics_address) as one:
        yield one.query


def number(result):
    return float(result[0]["value"][1])


def test_prometheus_scrapes_and_answers(used, prometheus):
    for name in sorted(HISTOGRAMS):
        assert until(lambda name=name: prometheus(f"{name}_bucket"), name)
    for name in sorted(OTHERS):
        assert until(lambda name=name: prometheus(name), name)
    # What a dashboard asks: a rate and a quantile need two scrapes with work between them.
    start = number(
        until(
            lambda: prometheus(f"hanmo_requests_total{{model='{PAINTER}',code='OK'}}"),
            "the counter",
        )
    )
    for seed in range(3):
        generate(used, picture_request(seed=seed))
    until(
        lambda: (
            (found := prometheus(f"hanmo_requests_total{{model='{PAINTER}',code='OK'}}"))
            and number(found) == start + 3
        ),
        "three more",
    )
    quantile = until(
        lambda: prometheus(
            "histogram_quantile(0.9, sum by (le) (rate("
            f"hanmo_request_seconds_bucket{{model='{PAINTER}'}}[1m]))) > 0"
        ),
        "the quantile",
    )
    assert 0 < number(quantile) < 60
    steps = until(
        lambda: prometheus(f"sum(rate(hanmo_step_seconds_count{{model='{PAINTER}'}}[1m])) > 0"),
        "the step rate",
    )
    assert number(steps) > 0


CANARY = "金丝雀歌唱于幽谷"


def test_logs_are_json_with_ids_and_without_prompts(start_server):
    server = start_server("--log-format=json", "--log-level=debug")
    generate(server, text_request(CANARY, request_id="canary-text", max_tokens=5, seed=1))
    generate(
        server,
        picture_request(
            "山水", negative_prompt="飞鸟", sampler="ddim", request_id="canary-picture"
        ),
    )
    error_of(generate, server, picture_request(CANARY, steps=0, request_id="canary-refused"))
    error_of(generate, server, text_request(CANARY * 60, request_id="canary-long"))
    server.terminate()
    assert server.wait_exit() == 0
    lines = [json.loads(line) for line in server.log().splitlines()]
    requests = {line["request_id"]: line for line in lines if line.get("request_id")}
    assert set(requests) == {"canary-text", "canary-picture", "canary-refused", "canary-long"}
    assert requests["canary-text"]["code"] == "OK" and requests["canary-text"]["model"] == POET
    assert requests["canary-picture"]["steps"] == 4
    assert requests["canary-refused"]["code"] == "INVALID_ARGUMENT"
    for words in (CANARY, "山水", "飞鸟", CANARY[:4]):
        assert words not in server.log()
        assert words.encode("unicode_escape").decode() not in server.log()


def test_no_prompt_in_the_metrics(used):
    generate(used, text_request(CANARY, max_tokens=3))
    error_of(generate, used, text_request(CANARY, model=CANARY))
    assert CANARY not in used.metrics().text
