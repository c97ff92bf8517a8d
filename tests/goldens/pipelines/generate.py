"""Writes tiny random pipelines in the published layouts, and what diffusers paints with them.

    python tests/goldens/pipelines/generate.py

Each folder beside this file is a whole StableDiffusionPipeline with random weights; golden.safetensors
holds the picture of every sampler before rounding, height x width x 3 in 0 to 1; golden.json holds
the requests (token ids included: the tokenizers have tests of their own) and the versions.
"""

import json
import pathlib
import shutil

import diffusers
import safetensors.torch
import torch
import transformers
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

HERE = pathlib.Path(__file__).parent
SAMPLERS = {
    "ddim": diffusers.DDIMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}
CHARACTERS = "山水花鸟春夏秋冬日月江河古风墨竹松梅兰"


def bert(folder, width, length):
    """A BertModel and its tokenizer, which has nothing but vocab.txt and its config."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", *CHARACTERS]
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": length,
    }
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=length,
        layer_norm_eps=1e-12,
    )
    return transformers.BertModel(config)


def clip(folder, width, length):
    """A CLIPTextModel and its byte-pair tokenizer without merges."""
    letters = [*"abcdefghijklmnopqrstuvwxyz,"]
    words = letters + [w + "</w>" for w in letters] + ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir(parents=True)
    (tokenizer / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(settings))
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=length,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
        pad_token_id=len(words) - 1,
    )
    return transformers.CLIPTextModel(config)


def unet(width, channels, heads, plain_last, **more):
    """As SD 1.4's, with fewer levels: `plain_last` leaves the attention out of the lowest one."""
    levels = len(channels)
    down = ["CrossAttnDownBlock2D"] * levels
    up = ["CrossAttnUpBlock2D"] * levels
    if plain_last:
        down[-1], up[0] = "DownBlock2D", "UpBlock2D"
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=channels,
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=width,
        attention_head_dim=heads,
        **more,
    )


def vae(channels, latent_channels=4):
    model = AutoencoderKL(
        block_out_channels=channels,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
    )
    # Random weights paint grey; these pictures use most of the range.
    with torch.no_grad():
        model.decoder.conv_out.weight *= 3
    return model


def save(folder, parts, dtype, safe):
    """model_index.json and the components, as save_pretrained writes them."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.5.1",
        "tokenizer": [
            "transformers",
            json.loads((folder / "tokenizer/tokenizer_config.json").read_text())["tokenizer_class"],
        ],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    for name, part in parts.items():
        library = type(part).__module__.split(".")[0]
        index[name] = [library, type(part).__name__]
        if isinstance(part, torch.nn.Module):
            part = part.to(dtype)
        if library == "transformers" and not safe:
            # transformers 5 writes safetensors only.
            (folder / name).mkdir()
            part.config.architectures = [type(part).__name__]
            part.config.save_pretrained(folder / name)
            torch.save(part.state_dict(), folder / name / "pytorch_model.bin")
        elif isinstance(part, torch.nn.Module):
            part.save_pretrained(folder / name, safe_serialization=safe)
        else:
            part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def drop_keys(path, *keys):
    settings = json.loads(path.read_text())
    for key in keys:
        settings.pop(key, None)
    path.write_text(json.dumps(settings, indent=2))


def old_attention_names(path):
    """The spelling of the first published autoencoders."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = torch.load(path, weights_only=True)
    for new, old in names.items():
        weights = {k.replace(f".{new}.", f".{old}."): v for k, v in weights.items()}
    torch.save(weights, path)


def taiyi(folder):
    """Taiyi-Stable-Diffusion-1B-Chinese: BERT padded to 512, PNDM with an early, sparse config."""
    torch.manual_seed(1)
    text = bert(folder, 24, 512)
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True
    )
    save(
        folder,
        {
            "text_encoder": text,
            "unet": unet(24, (12, 20), 2, True),
            "vae": vae((8, 8, 12, 12)),
            "scheduler": scheduler,
        },
        torch.float16,
        True,
    )
    drop_keys(
        folder / "scheduler/scheduler_config.json",
        "set_alpha_to_one",
        "steps_offset",
        "prediction_type",
        "timestep_spacing",
        "trained_betas",
        "_diffusers_version",
    )
    drop_keys(folder / "vae/config.json", "scaling_factor")


def chinese_en(folder):
    """Chinese-EN: CLIP, .bin alone, and v_prediction; odd widths, three levels, pictures by 4."""
    torch.manual_seed(2)
    text = clip(folder, 20, 77)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        set_alpha_to_one=False,
        clip_sample=False,
        steps_offset=1,
    )
    save(
        folder,
        {
            "text_encoder": text,
            "unet": unet(20, (8, 12, 16), [2, 3, 4], False),
            "vae": vae((8, 12, 12)),
            "scheduler": scheduler,
        },
        torch.float16,
        False,
    )
    old_attention_names(folder / "vae/diffusion_pytorch_model.bin")


def anime(folder):
    """Anime: bfloat16 weights, linear projections, and a scheduler that asks for the sample."""
    torch.manual_seed(3)
    text = bert(folder, 16, 48)
    scheduler = diffusers.DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    save(
        folder,
        {
            "text_encoder": text,
            "unet": unet(16, (12, 16), 4, False, use_linear_projection=True),
            "vae": vae((8, 12)),
            "scheduler": scheduler,
        },
        torch.bfloat16,
        True,
    )


PIPELINES = {
    "taiyi": (taiyi, "春日江山,松月", "花", {"width": 32, "height": 32, "guidance_scale": 7.5}),
    "chinese_en": (
        chinese_en,
        "ink, hills",
        "",
        {"width": 24, "height": 32, "guidance_scale": 3.0},
    ),
    "anime": (anime, "古风墨竹", "", {"width": 24, "height": 32, "guidance_scale": 1.0}),
}


def prompt_ids(pipeline, prompt):
    return pipeline.tokenizer(
        prompt,
        padding="max_length",
        truncation=True,
        max_length=pipeline.tokenizer.model_max_length,
    ).input_ids


def main():
    torch.set_num_threads(1)
    pictures, prompts, cases = {}, {}, []
    for number, (name, (make, prompt, negative, options)) in enumerate(PIPELINES.items()):
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder, torch_dtype=torch.float32, safety_checker=None
        )
        components = {**pipeline.components, "requires_safety_checker": False}
        prompts[name] = {
            "prompt": prompt_ids(pipeline, prompt),
            "negative_prompt": prompt_ids(pipeline, negative),
        }
        for sampler, scheduler in SAMPLERS.items():
            # Built anew, so that the pipeline's overrides of a scheduler's settings apply.
            components["scheduler"] = scheduler.from_pretrained(folder, subfolder="scheduler")
            pipeline = StableDiffusionPipeline(**components)
            pipeline.set_progress_bar_config(disable=True)
            seed, steps = 1000 * number + len(cases), 6
            try:
                picture = pipeline(
                    prompt,
                    negative_prompt=negative,
                    num_inference_steps=steps,
                    output_type="np",
                    generator=torch.Generator("cpu").manual_seed(seed),
                    **options,
                ).images[0]
            except (NotImplementedError, ValueError) as error:
                print(f"{name} {sampler}: diffusers refuses: {error}")
                continue
            assert picture.std() > 0.05, (name, sampler, picture.std())
            pictures[f"{name}.{sampler}"] = torch.from_numpy(picture).contiguous()
            cases.append(
                {"folder": name, "sampler": sampler, "steps": steps, "seed": seed, **options}
            )
    safetensors.torch.save_file(pictures, HERE / "golden.safetensors")
    versions = {m.__name__: m.__version__ for m in (torch, diffusers, transformers)}
    (HERE / "golden.json").write_text(
        json.dumps({"versions": versions, "prompts": prompts, "cases": cases}) + "\n"
    )
    for name, picture in pictures.items():
        print(f"{name}: mean {picture.mean():.3f} deviation {picture.std():.3f}")


if __name__ == "__main__":
    main()
