"""Texts that must match: JSON schemas, regular expressions, grammars, choices."""

import concurrent.futures
import json
import os
import re
import shutil
import signal

import grpc
import jsonschema_rs
import pytest
from calls import (
    EOS,
    LENGTH,
    POEM,
    POET,
    STOP,
    error_of,
    generate,
    stream,
    text_request,
    violations,
    write,
)
from contract import ROOT, generation_pb2
from hanmo_server import Server
from observe import PATIENCE
from random_schemas import RandomSchemas
from test_true_size import write_safetensors

BABBLER = "babbler"
POET_FOLDER = ROOT / "models" / POET
FORM = re.compile(r"[\u4e00-\u9fa5]{5}，[\u4e00-\u9fa5]{5}。")
FORM_REGEX = r"[\u4e00-\u9fa5]{5}，[\u4e00-\u9fa5]{5}。"


def guided(guide, prompt=POEM + "\n", **parameters):
    return text_request(prompt, guide=guide, **parameters)


def regex(text, **parameters):
    return guided(generation_pb2.Guide(regex=text), **parameters)


def schema(value, **parameters):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return guided(generation_pb2.Guide(json_schema=text), **parameters)


def choice(*texts, **parameters):
    return guided(generation_pb2.Guide(choice=generation_pb2.Choice(texts=texts)), **parameters)


def grammar(text, **parameters):
    return guided(generation_pb2.Guide(grammar=text), **parameters)


def gpt2_shapes(vocabulary, width, layers, positions):
    yield "transformer.wte.weight", (vocabulary, width)
    yield "transformer.wpe.weight", (positions, width)
    for layer in range(layers):
        block = f"transformer.h.{layer}"
        for name, rows, columns in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            yield f"{block}.{name}.weight", (rows, columns)
            yield f"{block}.{name}.bias", (columns,)
    for norm in (f"h.{n}.ln_{i}" for n in range(layers) for i in (1, 2)):
        yield f"transformer.{norm}.weight", (width,)
        yield f"transformer.{norm}.bias", (width,)
    yield "transformer.ln_f.weight", (width,)
    yield "transformer.ln_f.bias", (width,)


@pytest.fixture(scope="module")
def babbler(tmp_path_factory):
    """A server with the poet and with a model of random weights and a long context, which likes any
    token as well as any other."""
    repository = tmp_path_factory.mktemp("guides")
    (repository / POET).symlink_to(POET_FOLDER, target_is_directory=True)
    folder = repository / BABBLER
    folder.mkdir()
    config = json.loads((POET_FOLDER / "config.json").read_text())
    config |= {"n_embd": 32, "n_head": 2, "n_layer": 1, "n_positions": 4096}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copy(POET_FOLDER / name, folder / name)
    write_safetensors(
        folder / "model.safetensors", dict(gpt2_shapes(config["vocab_size"], 32, 1, 4096)), 1
    )
    log = tmp_path_factory.mktemp("babbler") / "server.log"
    running = Server(repository, "--workers=2", "--worker-threads=1", log=log).wait_serving()
    yield running
    running.close()


def check_documents(server, seeds):
    """Every document of these random schemas ends by itself and is valid."""

    def one(seed):
        wanted = RandomSchemas(seed).schema()
        text = write(server, schema(wanted, prompt="山", model=BABBLER, seed=seed, max_tokens=1200))
        document = json.loads(text.text)
        # A validator of its own, which asserts formats, too.
        jsonschema_rs.validator_for(wanted, validate_formats=True).validate(document)
        assert text.finish_reason == EOS, (seed, wanted)
        return len(text.token_ids)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        lengths = list(pool.map(one, seeds))
    print(f"{len(lengths)} documents of {min(lengths)} to {max(lengths)} tokens")


def test_documents_are_valid_by_their_schemas(babbler):
    check_documents(babbler, range(100))


@pytest.mark.long
def test_a_thousand_documents_are_valid_by_their_schemas(babbler):
    check_documents(babbler, range(1000))


def test_poems_of_a_form(server):
    for seed in range(8):
        text = write(server, regex(FORM_REGEX, seed=seed))
        assert FORM.fullmatch(text.text) and text.finish_reason == EOS
    texts = [output.text for output in generate(server, regex(FORM_REGEX, seed=1, n=4)).outputs]
    assert len({text.text for text in texts}) == 4
    assert texts[1] == write(server, regex(FORM_REGEX, seed=2))


def test_a_choice_is_one_of_its_texts(server):
    texts = ["五言绝句", "七言律诗", 'a "quoted"\ntext\\', "五言"]
    seen = {write(server, choice(*texts, seed=seed, temperature=8)).text for seed in range(24)}
    assert seen <= set(texts) and len(seen) > 1
    # Where one text begins another, both can be had.
    only = {
        write(server, choice("山", "山水", seed=seed, temperature=4)).text for seed in range(24)
    }
    assert only == {"山", "山水"}


def test_a_grammar(server):
    nested = grammar('start: "(" start ")" | "水"', seed=3, temperature=2, max_tokens=90)
    text = write(server, nested)
    assert text.finish_reason == EOS and re.fullmatch(r"\(*水\)*", text.text)
    assert text.text.count("(") == text.text.count(")")


def test_a_stream_is_the_same_text(server):
    request = schema({"type": "object", "properties": {"诗": {"type": "string", "maxLength": 9}},
                      "required": ["诗"], "additionalProperties": False}, seed=5, logprobs=1)  # fmt: skip
    streamed = stream(server, request)
    text = write(server, request)
    assert streamed.text() == text.text and streamed.final.outputs[0].text == text
    assert set(json.loads(text.text)) == {"诗"}
    assert len(text.logprobs) == len(text.token_ids)


def test_what_else_ends_a_text_cuts_it(server):
    digits = regex("[0-9]{40}", seed=1, max_tokens=10)
    assert write(server, digits).finish_reason == LENGTH
    stopped = write(server, regex("[0-9]{3}山[0-9]{3}", seed=1, stop=["山"]))
    assert (stopped.finish_reason, stopped.stop_reason) == (STOP, "山")
    assert re.fullmatch("[0-9]{3}", stopped.text)
    least = write(server, regex("[0-9]+", seed=1, min_tokens=20, max_tokens=60))
    assert len(least.token_ids) > 20
    short = write(server, regex("山", seed=1, min_tokens=20))
    assert (short.text, short.finish_reason) == ("山", EOS)


def test_bias_and_penalties_choose_among_what_is_allowed(server):
    token = generation_pb2.TokenizeRequest(model=POET, text="7")
    (seven,) = server.generation.Tokenize(token).ids
    assert write(server, regex("[0-9]{6}", logit_bias={seven: 100})).text == "777777"
    text = write(server, regex("[0-9]{6}", temperature=0, presence_penalty=2, repetition_penalty=9))
    assert len(set(text.text)) > 3


@pytest.mark.parametrize(
    ("request_", "field", "words"),
    [
        (schema("{"), "text.guide.json_schema", "not JSON"),
        (schema({"not": {}}), "text.guide.json_schema", "not"),
        (schema({"type": "array", "uniqueItems": True}), "text.guide.json_schema", "uniqueItems"),
        (schema("[" * 60000), "text.guide.json_schema", "recursion"),
        (regex("("), "text.guide.regex", "unclosed"),
        (regex("a" * 4097), "text.guide.regex", "4096"),
        (grammar("start: nowhere"), "text.guide.grammar", "nowhere"),
        (grammar("start: " + "(" * 8000), "text.guide.grammar", ""),
        (choice(), "text.guide.choice.texts", "1 to 1024"),
        (choice("a", ""), "text.guide.choice.texts[1]", "1 to 4096"),
        (guided(generation_pb2.Guide()), "text.guide", "one of json_schema"),
        (regex("a", ignore_eos=True), "text.ignore_eos", "must be false"),
        (regex("a", model="taiyi-sd-tiny"), "text", "paints"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)  # fmt: skip
def test_a_wrong_guide_is_refused_before_anything_is_written(server, request_, field, words):
    error = error_of(generate, server, request_)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    ((named, told),) = violations(error).items()
    assert named == field and words in told
    assert len(told) < 1000


def test_hostile_guides_hold_up_nobody(babbler):
    """They are refused, or their texts end; the others are written meanwhile, by the same workers."""
    hostile = [
        regex("(a|b)*a(a|b){3000}", model=BABBLER, max_tokens=50),
        regex("(x+x+)+y", model=BABBLER, max_tokens=200),
        regex("(?i:山)?" * 400, model=BABBLER, max_tokens=50),
        grammar('start: start start | "a" |', model=BABBLER, max_tokens=50),
        schema({"type": "string", "minLength": 100000000}, model=BABBLER, max_tokens=50),
        schema({"$ref": "#"}, model=BABBLER, max_tokens=50),
    ]
    workers = babbler.worker_pids()

    def send(request):
        try:
            return generate(babbler, request).outputs[0].text.finish_reason
        except grpc.RpcError as error:
            return error.code()

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        ends = [pool.submit(send, request) for request in hostile * 3]
        plain = [pool.submit(write, babbler, text_request(seed=seed)) for seed in range(8)]
        assert all(text.result().text for text in plain)
        assert {end.result() for end in ends} <= {
            EOS, LENGTH, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED
        }  # fmt: skip
    assert babbler.worker_pids() == workers
    assert write(babbler, regex("山", model=BABBLER)).text == "山"


FIVE = {"type": "array", "items": {"const": {"山": "水"}}, "minItems": 5, "maxItems": 5}


@pytest.mark.parametrize("speculation", [0, 8])
def test_neither_guesses_nor_a_death_change_a_guided_text(server, start_server, speculation):
    requests = [
        schema(FIVE, seed=1, max_tokens=200),
        regex("([0-9]{3},){12}", seed=2, max_tokens=200),
        regex(f"({FORM_REGEX}){{4}}", seed=3, max_tokens=200),
    ]
    plainly_written = [write(server, request) for request in requests]
    assert all(text.finish_reason == EOS for text in plainly_written)
    server = start_server(f"--speculative-tokens={speculation}", "--worker-threads=1")
    for request, alone in zip(requests, plainly_written, strict=True):
        assert write(server, request) == alone
        streamed = server.generation.GenerateStream(request, timeout=PATIENCE)
        texts, killed = 0, False
        for event in streamed:
            texts += event.HasField("text")
            if texts >= 2 and not killed:
                (pid,) = server.worker_pids()
                os.kill(pid, signal.SIGKILL)
                killed = True
        assert killed and event.final.outputs[0].text == alone
