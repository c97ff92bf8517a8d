"""Qwen3, ERNIE 4.5 and Llama folders as transformers saves them, made here with random weights: what
the server writes is what transformers generates, with and without thinking, guesses and company."""

import json
import random

import grpc
import pytest
from calls import (
    POET,
    chat_request,
    error_of,
    generate,
    ids_request,
    outputs,
    text_request,
    violations,
    write,
)
from transformers_live import needs_transformers

pytestmark = needs_transformers

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
WORDS = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少 The moon rises over the river, 1234 stars.\n"
QUESTIONS = ["写一首关于秋山的五言绝句", "What is 12 + 30?", "江上，明月；孤舟。" * 40]


def save_tokenizer(folder, tokenizer_class):
    """Byte-level BPE with Qwen's pipeline, as tokenizer.json."""
    import tokenizers
    import transformers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    pattern = transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS, *QUESTIONS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        **({"tokenizer_class": tokenizer_class} if tokenizer_class else {}),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def save_folder(folder, config_class, tokenizer_class=None, **config):
    import torch
    import transformers

    folder.mkdir(parents=True)
    vocabulary = save_tokenizer(folder, tokenizer_class)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(
        config_class(
            vocab_size=vocabulary,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=2048,
            initializer_range=0.15,
            bos_token_id=None,
            **config,
        ),
        dtype=torch.float32,
    )
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [2, 0], "pad_token_id": 0, "temperature": 0.6, "top_k": 20})
    )


FAMILIES = ("qwen3", "ernie", "llama")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    import transformers

    root = tmp_path_factory.mktemp("decoders")
    save_folder(
        root / "qwen3",
        transformers.Qwen3Config,
        num_key_value_heads=2,
        head_dim=20,
        tie_word_embeddings=True,
    )
    save_folder(
        root / "ernie",
        transformers.Ernie4_5Config,
        "PreTrainedTokenizerFast",
        num_key_value_heads=1,
        head_dim=12,
        pad_token_id=0,
        eos_token_id=2,
    )
    save_folder(root / "llama", transformers.LlamaConfig, "Qwen2Tokenizer")
    return root


@pytest.fixture(scope="module")
def decoders(folders, tmp_path_factory):
    from hanmo_server import Server

    log = tmp_path_factory.mktemp("log") / "server.log"
    server = Server(folders, "--dtype=float32", log=log).wait_serving()
    yield server
    print(server.log())
    server.close()


def theirs(folder, ids, tokens):
    """The greedy ids of transformers after `ids`, ends included."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = torch.tensor([ids])
    written = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens
    )
    return written[0, len(ids) :].tolist()


def chat_ids(folder, question, **switches):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=False,
        add_generation_prompt=True,
        **switches,
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def with_thinking(request, thinking):
    if thinking is not None:
        request.chat.thinking = thinking
    return request


@pytest.mark.parametrize("family", FAMILIES)
def test_conversations_are_those_of_transformers(decoders, folders, family):
    for question in QUESTIONS:
        prompts = set()
        for thinking in (None, True, False):
            switches = {} if thinking is None else {"enable_thinking": thinking}
            ids = chat_ids(folders / family, question, **switches)
            prompts.add(tuple(ids))
            request = chat_request(("user", question), model=family, temperature=0, max_tokens=40)
            response = generate(decoders, with_thinking(request, thinking))
            assert response.usage.prompt_tokens == len(ids)
            expected = theirs(folders / family, ids, 40)
            assert list(response.outputs[0].text.token_ids) == expected
        assert len(prompts) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_long_prompts_company_and_guesses_change_nothing(
    decoders, folders, family, start_server, tmp_path, links
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
    expected = theirs(folders / family, long, 48)  # to the first end, which ours ignores
    assert list(together[0][0][1])[: len(expected)] == expected


def test_models_tell_that_they_can_think(decoders, server):
    thinker = decoders.describe("qwen3").text
    poet = server.describe(POET).text
    assert thinker.has_chat_template and thinker.has_thinking_switch
    assert list(thinker.eos_token_ids) == [2, 0]
    assert thinker.default_temperature == pytest.approx(0.6) and thinker.default_top_k == 20
    assert poet.has_chat_template and not poet.has_thinking_switch
    error = error_of(
        server.generation.Generate, with_thinking(chat_request(("user", "诗")), thinking=True)
    )
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert list(violations(error)) == ["chat.thinking"]


def test_plain_prompts_are_tokenized_as_transformers_does(decoders, folders):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "qwen3")
    for prompt in (WORDS, "ﬁ Å é \u0301 <|im_end|> 😀 \t\r\n  x", "12345 千字文"):
        ids = tokenizer(prompt)["input_ids"]
        text = write(decoders, text_request(prompt, "qwen3", temperature=0, max_tokens=16))
        assert list(text.token_ids) == theirs(folders / "qwen3", ids, 16)
