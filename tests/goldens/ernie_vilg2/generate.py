"""Writes tiny random mixtures of denoising experts, and what a loop over diffusers makes of them.

    python tests/goldens/ernie_vilg2/generate.py

diffusers has no pipeline for them, so the loop is written out: UNet2DConditionModel by timestep,
DDIMScheduler, classifier-free guidance. Each folder beside this file is a whole ErnieViLG2Pipeline;
golden.safetensors holds every latent of its case, the first one included, in float32; golden.json the
requests and the versions.
"""

import importlib.util
import json
import pathlib
import shutil

import diffusers
import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent


def _pipelines():
    spec = importlib.util.spec_from_file_location(
        "pipelines", HERE.parent / "pipelines/generate.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pipelines = _pipelines()


def ernie(folder, width, length):
    """An ErnieModel with task types, as ERNIE 3.0 has them, and its tokenizer."""
    vocabulary = pipelines.bert(folder, width, length).config.vocab_size
    config = transformers.ErnieConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=length,
        type_vocab_size=4,
        use_task_id=True,
        task_type_vocab_size=3,
    )
    return transformers.ErnieModel(config)


def expert(**more):
    """As ERNIE-ViLG 2.0's: no attention on top, heads by level."""
    return diffusers.UNet2DConditionModel(
        sample_size=8, norm_num_groups=4, cross_attention_dim=16, **more
    )


def two(folder):
    """Uneven borders, a config.json for each expert, listed as they are trained: from 0 on."""
    torch.manual_seed(11)
    shape = dict(
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_head_dim=(1, 2),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    experts = [expert(**shape), expert(**shape)]
    ranges = [("low", 0, 300), ("high", 300, 1000)]
    return pipelines.bert(folder, 16, 24), experts, ranges, {}, True


def three(folder):
    """Borders in no order, one config.json for all, velocities, ERNIE's text encoder."""
    torch.manual_seed(12)
    shape = dict(
        block_out_channels=(8, 12, 16),
        layers_per_block=1,
        attention_head_dim=(2, 3, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    experts = [expert(**shape) for _ in range(3)]
    ranges = [("unet_01", 120, 701), ("unet_00", 0, 120), ("unet_02", 701, 1000)]
    more = {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    return ernie(folder, 16, 24), experts, ranges, more, False


def save(folder, parts, experts, ranges, configs):
    index = {
        "_class_name": "ErnieViLG2Pipeline",
        "tokenizer": ["transformers", "BertTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "experts": [
            {"subfolder": name, "t_min": t_min, "t_max": t_max} for name, t_min, t_max in ranges
        ],
    }
    for name, part in parts.items():
        index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
        part.save_pretrained(folder / name)
    for (name, _, _), unet in zip(ranges, experts):
        unet.save_pretrained(folder / name)
        if not configs and name != ranges[0][0]:
            (folder / name / "config.json").unlink()
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


CASES = {
    "two": (two, "春日江山,松月", "花", {"steps": 10, "guidance": 2.1, "height": 8, "width": 8}),
    "three": (three, "古风墨竹", "", {"steps": 13, "guidance": 4.0, "height": 6, "width": 8}),
}


@torch.no_grad()
def paint(text_encoder, experts, ranges, scheduler, ids, case):
    """Every latent of the loop, [steps + 1, channels, height, width]."""
    context = text_encoder(torch.tensor(ids)).last_hidden_state
    shape = (1, 4, case["height"], case["width"])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(case["seed"]))
    scheduler.set_timesteps(case["steps"])
    latents, used = [x[0]], []
    for t in scheduler.timesteps:
        (number,) = [i for i, (_, low, high) in enumerate(ranges) if low <= t < high]
        used.append(number)
        empty, asked = experts[number](torch.cat([x, x]), t, context).sample.chunk(2)
        x = scheduler.step(empty + case["guidance"] * (asked - empty), t, x).prev_sample
        latents.append(x[0])
    assert len(set(used)) == len(experts), used
    return torch.stack(latents)


def main():
    torch.set_num_threads(1)
    goldens, cases = {}, {}
    for number, (name, (make, prompt, negative, case)) in enumerate(CASES.items()):
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        text_encoder, experts, ranges, more, configs = make(folder)
        scheduler = diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="linear",
            clip_sample=False,
            steps_offset=1,
            **more,
        )
        parts = {
            "text_encoder": text_encoder.half(),
            "vae": pipelines.vae((8, 8, 12, 12)).half(),
            "scheduler": scheduler,
        }
        save(folder, parts, [unet.half() for unet in experts], ranges, configs)
        tokenizer = transformers.BertTokenizer.from_pretrained(folder / "tokenizer")
        ids = [
            tokenizer(text, padding="max_length", max_length=24).input_ids
            for text in (negative, prompt)
        ]
        case = {**case, "seed": 40 + number, "negative_prompt": ids[0], "prompt": ids[1]}
        latents = paint(
            text_encoder.float().eval(),
            [unet.float().eval() for unet in experts],
            ranges,
            scheduler,
            ids,
            case,
        )
        goldens[name], cases[name] = latents.contiguous(), case
        print(f"{name}: from deviation {latents[0].std():.3f} to {latents[-1].std():.3f}")
    safetensors.torch.save_file(goldens, HERE / "golden.safetensors")
    versions = {m.__name__: m.__version__ for m in (torch, diffusers, transformers)}
    (HERE / "golden.json").write_text(json.dumps({"versions": versions, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
