"""Work that texts save, shared prefixes and guessed tokens, changes no byte of them."""

import pytest
from calls import POET, generate
from mixed_load import texts_that_repeat as requests


def same(a, b):
    assert len(a.outputs) == len(b.outputs)
    for one, other in zip(a.outputs, b.outputs, strict=True):
        assert one.text == other.text


@pytest.fixture
def plain(start_server):
    return start_server("--prefix-cache-bytes=0", "--speculative-tokens=0")


def test_nothing_saved_changes_a_text(start_server, plain):
    server = start_server()
    without = [generate(plain, request) for request in requests()]
    first = [generate(server, request) for request in requests()]
    again = [generate(server, request) for request in requests()]
    calls = [server.generation.Generate.future(request, timeout=60) for request in requests()]
    together = [call.result() for call in calls]
    for responses in (first, again, together):
        for response, expected in zip(responses, without, strict=True):
            same(response, expected)

    # It was saved, and said so.
    assert all(response.usage.cached_prompt_tokens == 0 for response in without)
    assert first[0].usage.cached_prompt_tokens == 0
    assert all(response.usage.cached_prompt_tokens > 16 for response in first[1:6])
    for response in again:  # all but what is left of the last page, or the last page
        usage = response.usage
        assert 1 <= usage.prompt_tokens - usage.cached_prompt_tokens <= 16
    metrics = server.metrics()
    assert metrics.sum("hanmo_prefix_cache_hit_tokens_total", model=POET) > 500
    drafted = metrics.sum("hanmo_draft_tokens_total", model=POET)
    accepted = metrics.sum("hanmo_draft_tokens_accepted_total", model=POET)
    assert drafted > accepted > 0
    off = plain.metrics()
    assert off.sum("hanmo_prefix_cache_hit_tokens_total") == 0
    assert off.sum("hanmo_draft_tokens_total") == 0
    server.wait_idle()
    assert server.metrics().sum("hanmo_kv_pages_used") == 0
