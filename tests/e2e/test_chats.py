"""Recorded Qwen3 and ERNIE 4.5 folders: conversations with thinking on and off, guesses, guides.
test_decoders.py compares with transformers itself, where that is installed."""

import json
import re

import grpc
import pytest
from calls import (
    EOS,
    POET,
    chat_request,
    error_of,
    generate,
    ids_request,
    outputs,
    violations,
    with_thinking,
    write,
)
from contract import generation_pb2
from hanmo_server import Server
from repositories import GOLDENS, MODELS, link_models

FAMILIES = ("qwen3", "ernie")
SCHEMA = {
    "type": "object",
    "properties": {"季节": {"enum": ["春", "秋"]}, "n": {"type": "integer", "maximum": 99}},
    "required": ["季节", "n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folders = {family: GOLDENS / "chats" / family for family in FAMILIES}
    return link_models(
        tmp_path_factory.mktemp("chats") / "repository", **folders, poet=MODELS / POET
    )


def start(repository, folder, *options):
    return Server(repository, "--dtype=float32", *options, log=folder / "log").wait_serving()


@pytest.fixture(scope="module")
def chats(repository, tmp_path_factory):
    one = start(repository, tmp_path_factory.mktemp("log"))
    yield one
    print(one.log())
    one.close()


@pytest.fixture(scope="module")
def plain(repository, tmp_path_factory):
    """A server that guesses nothing and shares nothing."""
    options = ("--speculative-tokens=0", "--prefix-cache-bytes=0")
    one = start(repository, tmp_path_factory.mktemp("log"), *options)
    yield one
    print(one.log())
    one.close()


def golden(family):
    return json.loads((GOLDENS / "chats" / family / "chat.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_conversations_are_those_of_transformers(chats, family):
    prompts = set()
    for one in golden(family)["chats"]:
        request = chat_request(
            ("user", one["question"]), model=family, temperature=0, max_tokens=40
        )
        response = generate(chats, with_thinking(request, one["thinking"]))
        assert response.usage.prompt_tokens == len(one["ids"])
        assert list(response.outputs[0].text.token_ids) == one["written"]
        prompts.add(tuple(one["ids"]))
    assert len(prompts) == 2 * len(golden(family)["chats"]) // 3


@pytest.mark.parametrize("family", FAMILIES)
def test_guesses_and_company_change_nothing(chats, plain, family):
    """Prompts of several chunks, shared prefixes, and one that repeats itself."""
    texts = golden(family)["texts"]
    requests = [
        ids_request(one["ids"], family, temperature=0, seed=1, max_tokens=40, ignore_eos=True)
        for one in texts
    ]
    calls = [chats.generation.Generate.future(request, timeout=60) for request in requests]
    together = [outputs(call.result()) for call in calls]
    assert [list(found[0][1]) for found in together] == [one["written"] for one in texts]
    assert together == [outputs(generate(plain, request)) for request in requests]
    assert chats.metrics().sum("hanmo_draft_tokens_total", model=family) > 0
    assert plain.metrics().sum("hanmo_draft_tokens_total") == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guide_holds_from_the_first_token_whatever_the_switch(chats, plain, family):
    guide = generation_pb2.Guide(json_schema=json.dumps(SCHEMA, ensure_ascii=False))
    for thinking in (None, True, False):
        for seed in (1, 2):
            request = chat_request(
                ("user", "秋山"), model=family, seed=seed, max_tokens=80, guide=guide
            )
            text = write(chats, with_thinking(request, thinking))
            document = json.loads(text.text)
            assert set(document) == {"季节", "n"} and document["季节"] in ("春", "秋")
            assert document["n"] <= 99 and text.finish_reason == EOS
            assert write(plain, request) == text
    regex = chat_request(
        ("user", "秋山"), model=family, seed=3, guide=generation_pb2.Guide(regex="[0-9]{3}山")
    )
    assert re.fullmatch("[0-9]{3}山", write(chats, with_thinking(regex, True)).text)


def test_models_tell_that_they_can_think(chats):
    thinker = chats.describe("qwen3").text
    poet = chats.describe("poet").text
    assert thinker.has_chat_template and thinker.has_thinking_switch
    assert list(thinker.eos_token_ids) == [2, 0]
    assert thinker.default_temperature == pytest.approx(0.6) and thinker.default_top_k == 20
    assert poet.has_chat_template and not poet.has_thinking_switch
    request = with_thinking(chat_request(("user", "诗"), model="poet"), True)
    error = error_of(generate, chats, request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(error)) == ["chat.thinking"]
