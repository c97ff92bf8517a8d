"""The same folder, seed and prompt give what diffusers and transformers give: recorded answers
always, live ones where those libraries are installed (scripts/setup --reference)."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from calls import PAINTER, POEM, POET, ids_request, paint, picture_request, pixels, write
from contract import ROOT, generation_pb2
from safetensors.numpy import load_file

GOLDENS = ROOT / "tests/goldens"
PIPELINES = json.loads((GOLDENS / "pipelines/golden.json").read_text())
SAMPLERS = ("ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc")


def assert_same_picture(ours, theirs):
    """At most one level apart, and equal in 99 % of all bytes. `theirs` is in [0, 1]."""
    rounded = np.rint(theirs * 255).astype(np.int16)
    apart = np.abs(pixels(ours.data).astype(np.int16) - rounded)
    assert apart.max() <= 1
    assert (apart == 0).mean() >= 0.99


@pytest.mark.parametrize("case", PIPELINES["cases"], ids=lambda c: f"{c['folder']}-{c['sampler']}")
def test_recorded_pictures_of_diffusers(server, case):
    prompts = PIPELINES["prompts"][case["folder"]]
    request = picture_request(
        model=f"golden-pipelines-{case['folder'].replace('_', '-')}",
        width=case["width"],
        height=case["height"],
        steps=case["steps"],
        seed=case["seed"],
        guidance=case["guidance_scale"],
        sampler=case["sampler"],
        negative_prompt={"taiyi": "花", "chinese_en": "", "anime": ""}[case["folder"]],
    )
    request.prompt = {"taiyi": "春日江山,松月", "chinese_en": "ink, hills", "anime": "古风墨竹"}[
        case["folder"]
    ]
    golden = load_file(GOLDENS / "pipelines/golden.safetensors")
    assert_same_picture(paint(server, request), golden[f"{case['folder']}.{case['sampler']}"])
    # The ids that the reference's tokenizer gave lead to the same picture.
    by_words = paint(server, request).data
    request.ClearField("prompt")
    request.token_ids.ids.extend(prompts["prompt"])
    assert paint(server, request).data == by_words


TEXTS = sorted(
    f"{path.parent.parent.name}/{path.parent.name}"
    for family in ("gpt2", "decoders")
    for path in GOLDENS.glob(f"{family}/*/golden.safetensors")
)


@pytest.mark.parametrize("folder", TEXTS)
def test_recorded_texts_of_transformers(server, folder):
    golden = load_file(GOLDENS / folder / "golden.safetensors")
    model = "golden-" + folder.replace("/", "-").replace("_", "-")
    for i in range(4):
        greedy = golden[f"greedy.{i}"].tolist()
        text = write(
            server,
            ids_request(
                golden[f"prompt.{i}"].tolist(),
                model,
                temperature=0,
                max_tokens=len(greedy),
                ignore_eos=True,
                logprobs=20,
            ),
        )
        assert list(text.token_ids) == greedy
        logits = golden[f"logits.{i}"].astype(np.float64)
        expected = logits - np.logaddexp.reduce(logits)
        for candidate in text.logprobs[0].top:
            assert candidate.logprob == pytest.approx(expected[candidate.token_id], abs=1e-4)
        assert [c.token_id for c in text.logprobs[0].top] == np.argsort(-expected)[:20].tolist()


needs_reference = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None
    or importlib.util.find_spec("transformers") is None,
    reason="diffusers and transformers are not installed",
)


@needs_reference
def test_live_pictures_of_diffusers_from_the_demo_model(server):
    import diffusers
    import torch

    torch.set_num_threads(1)
    folder = ROOT / "models" / PAINTER
    prompt, negative = "一幅水墨画，两座青山，江上孤舟", "飞鸟"
    for sampler in SAMPLERS:
        theirs = diffusers_pipeline(folder, sampler)(
            prompt,
            negative_prompt=negative,
            num_inference_steps=5,
            guidance_scale=4.0,
            width=128,
            height=96,
            output_type="np",
            generator=torch.Generator("cpu").manual_seed(77),
        ).images[0]
        ours = paint(
            server,
            picture_request(
                prompt,
                negative_prompt=negative,
                steps=5,
                guidance=4.0,
                width=128,
                height=96,
                seed=77,
                sampler=sampler,
            ),
        )
        assert_same_picture(ours, theirs)
    del diffusers


@needs_reference
def test_live_pictures_of_other_configurations(start_server, tmp_path, links):
    """Shapes and settings that no recorded case has, made up here."""
    import diffusers
    import torch

    sys.path.insert(0, str(GOLDENS / "pipelines"))
    import generate as recipe

    torch.manual_seed(11)
    folder = tmp_path / "folders" / "odd"
    text = recipe.bert(folder, 28, 64)
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.0009,
        beta_end=0.011,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="linspace",
    )
    unet = recipe.unet(28, (12, 20, 28, 36), [2, 4, 4, 6], True)
    recipe.save(
        folder,
        {"text_encoder": text, "unet": unet, "vae": recipe.vae((8, 12)), "scheduler": scheduler},
        torch.float32,
        False,
    )
    server = start_server(repository=links(tmp_path / "repository", odd=folder))
    for sampler in ("euler", "ddim", "unipc", "pndm"):
        theirs = diffusers_pipeline(folder, sampler)(
            "山水,墨竹",
            num_inference_steps=7,
            guidance_scale=6.0,
            width=48,
            height=32,
            output_type="np",
            generator=torch.Generator("cpu").manual_seed(3),
        ).images[0]
        ours = paint(
            server,
            picture_request(
                "山水,墨竹",
                model="odd",
                steps=7,
                guidance=6.0,
                width=48,
                height=32,
                seed=3,
                sampler=sampler,
            ),
        )
        assert_same_picture(ours, theirs)


def diffusers_pipeline(folder, sampler):
    import diffusers
    import torch

    sys.path.insert(0, str(GOLDENS / "pipelines"))
    import generate as recipe

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None
    )
    scheduler = recipe.SAMPLERS[sampler].from_pretrained(folder, subfolder="scheduler")
    pipeline = diffusers.StableDiffusionPipeline(
        **(pipeline.components | {"scheduler": scheduler}), requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@needs_reference
def test_live_text_of_transformers_from_the_demo_model(server):
    import torch
    import transformers

    folder = ROOT / "models" / POET
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = tokenizer(POEM + "\n", return_tensors="pt")
    theirs = model.generate(
        **prompt,
        do_sample=False,
        temperature=None,
        top_p=None,
        max_new_tokens=64,
        eos_token_id=None,
    )[0, prompt.input_ids.shape[1] :]
    ours = write(
        server,
        generation_pb2.GenerateRequest(
            model=POET,
            prompt=POEM + "\n",
            text=generation_pb2.TextParameters(temperature=0, max_tokens=64, ignore_eos=True),
        ),
    )
    assert list(ours.token_ids) == theirs.tolist()


@needs_reference
def test_live_token_ids(server):
    import transformers

    sys.path.insert(0, str(GOLDENS / "tokenizers"))
    import strings

    texts = strings.strings(400, seed=3)
    for model, kind in ((POET, transformers.AutoTokenizer), (PAINTER, transformers.BertTokenizer)):
        folder = ROOT / "models" / model / ("tokenizer" if model == PAINTER else "")
        reference = kind.from_pretrained(folder)
        for text in texts:
            ours = server.generation.Tokenize(
                generation_pb2.TokenizeRequest(model=model, text=text), timeout=60
            ).ids
            assert list(ours) == reference(text, add_special_tokens=False).input_ids, repr(text)
