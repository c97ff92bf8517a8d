"""Qwen3, ERNIE 4.5 and Llama folders as transformers saves them, made here with random weights: what
the server writes is what transformers generates, with and without thinking, guesses and company."""

import random
import sys

import pytest
from calls import chat_request, generate, ids_request, outputs, text_request, with_thinking, write
from repositories import GOLDENS
from transformers_live import needs_transformers

pytestmark = needs_transformers

FAMILIES = ("qwen3", "ernie", "llama")
PLAIN = ("春眠不觉晓 rises over 1234\n", "ﬁ Å é \u0301 <|im_end|> 😀 \t\r\n  x", "12345 千字文")


@pytest.fixture(scope="module")
def chat_models():
    sys.path.insert(0, str(GOLDENS))
    import chat_models

    sys.path.remove(str(GOLDENS))
    return chat_models


@pytest.fixture(scope="module")
def folders(chat_models, tmp_path_factory):
    root = tmp_path_factory.mktemp("decoders")
    for name, case in chat_models.CASES.items():
        chat_models.save_folder(root / name, **case)
    return root


@pytest.fixture(scope="module")
def decoders(folders, tmp_path_factory):
    from hanmo_server import Server

    log = tmp_path_factory.mktemp("log") / "server.log"
    server = Server(folders, "--dtype=float32", log=log).wait_serving()
    yield server
    print(server.log())
    server.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_conversations_are_those_of_transformers(decoders, folders, chat_models, family):
    for question in chat_models.QUESTIONS:
        prompts = set()
        for thinking in (None, True, False):
            switches = {} if thinking is None else {"enable_thinking": thinking}
            ids = chat_models.chat_ids(folders / family, question, **switches)
            prompts.add(tuple(ids))
            request = chat_request(("user", question), model=family, temperature=0, max_tokens=40)
            response = generate(decoders, with_thinking(request, thinking))
            assert response.usage.prompt_tokens == len(ids)
            expected = chat_models.theirs(folders / family, ids, 40)
            assert list(response.outputs[0].text.token_ids) == expected
        assert len(prompts) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_long_prompts_company_and_guesses_change_nothing(
    decoders, folders, chat_models, family, start_server, tmp_path, links
):
    """Prompts of several chunks, shared prefixes and repeating texts that are guessed."""
    draw = random.Random(7)
    long = [draw.randrange(5, 300) for _ in range(700)]
    prompts = [long, long[:640] + [9, 8], [11, 12, 13] * 60, [11, 12, 13] * 60 + [11]]
    requests = [
        ids_request(ids, family, temperature=0, seed=1, max_tokens=48, ignore_eos=True)
        for ids in prompts
    ]
    calls = [decoders.generation.Generate.future(request) for request in requests]
    together = [outputs(call.result()) for call in calls]
    alone = start_server(
        "--dtype=float32",
        "--speculative-tokens=0",
        "--prefix-cache-bytes=0",
        repository=links(tmp_path / "repository", **{family: folders / family}),
    )
    assert together == [outputs(generate(alone, request)) for request in requests]
    expected = chat_models.theirs(
        folders / family, long, 48
    )  # to the first end, which ours ignores
    assert list(together[0][0][1])[: len(expected)] == expected


def test_plain_prompts_are_tokenized_as_transformers_does(decoders, folders, chat_models):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "qwen3")
    for prompt in PLAIN:
        ids = tokenizer(prompt)["input_ids"]
        text = write(decoders, text_request(prompt, "qwen3", temperature=0, max_tokens=16))
        assert list(text.token_ids) == chat_models.theirs(folders / "qwen3", ids, 16)
