"""Records tiny random ERNIE-ViLG checkpoints in the layout of docs/ernie-vilg.md, and what they answer.

    python generate.py            # writes the folders beside this file

The transformer is in model.py, the picture tokenizer is diffusers' VQModel.

golden.safetensors of a folder holds pictures painted greedily (`paint.I.source` word ids,
`paint.I.codes`, `paint.I.logits` of all of them) and texts written greedily about random pictures
(`write.I.codes`, `write.I.ids`, `write.I.logits`). The folder `whole` is a pipeline: there the codes
became `paint.I.rgb`, and `write.I.codes` were read from `write.I.rgb` (uint8, height x width x 3).
"""

import json
import math
import pathlib
import shutil
import sys

import diffusers
import safetensors.torch
import torch
from model import IDS, Model

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from text_models import save_weights, write_versions  # noqa: E402

MIN_MARGIN = 1e-3

BASE = dict(
    model_type="ernie_vilg",
    text_vocab_size=61,
    image_vocab_size=50,
    hidden_size=32,
    num_attention_heads=4,
    intermediate_size=64,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    max_text_length=20,
    token_type_vocab_size=4,
    tie_word_embeddings=True,
    **IDS,
)

# name: (config, storage dtype, layout, lengths of sources)
CASES = {
    # Rows longer than a page, all three kinds of layers, the paper's cycle.
    "post": (
        dict(
            norm_position="post",
            num_hidden_layers=6,
            image_grid=[6, 18],
            attention_pattern=dict(cycle=4, column_at=2, conv_last=True, conv_kernel=5),
        ),
        torch.float16,
        {},
        (3, 16),
    ),
    # Columns in every second layer, no window, an untied head.
    "pre": (
        dict(
            norm_position="pre",
            num_hidden_layers=3,
            image_grid=[3, 7],
            hidden_size=40,
            num_attention_heads=5,
            intermediate_size=72,
            hidden_act="gelu_new",
            layer_norm_eps=1e-5,
            tie_word_embeddings=False,
            attention_pattern=dict(cycle=2, column_at=1, conv_last=False, conv_kernel=3),
        ),
        torch.bfloat16,
        {},
        (1, 17),
    ),
    # A window wider than the picture, odd widths, shards; the pattern's own defaults.
    "sandwich": (
        dict(
            norm_position="sandwich",
            num_hidden_layers=4,
            image_grid=[9, 4],
            hidden_size=42,
            num_attention_heads=3,
            intermediate_size=50,
            hidden_act="relu",
            text_vocab_size=33,
            image_vocab_size=129,
            attention_pattern={},
        ),
        torch.float32,
        dict(shards=2),
        (2, 20),
    ),
    # Every picture token sees every other.
    "dense": (
        dict(
            norm_position="post",
            num_hidden_layers=2,
            image_grid=[2, 9],
            hidden_act="silu",
            attention_pattern=None,
        ),
        torch.float16,
        dict(binary=True),
        (5, 15),
    ),
    # A whole folder, with a picture tokenizer.
    "whole": (
        dict(
            norm_position="pre",
            num_hidden_layers=4,
            image_grid=[3, 5],
            image_vocab_size=48,
            attention_pattern=dict(cycle=4, column_at=2, conv_last=True, conv_kernel=3),
        ),
        torch.float16,
        {},
        (4, 18),
    ),
}


@torch.inference_mode()
def greedy(model, source, paints):
    """Target and its logits; None when a choice is too close to call."""
    c = model.c
    count = math.prod(c["image_grid"]) if paints else c["max_text_length"]
    never = [] if paints else [IDS[f"{t}_token_id"] for t in ("cls", "pad", "boi", "bot")]
    target = []
    while len(target) < count:
        last = model.logits(source, target, paints)[-1]
        last[never] = -torch.inf
        best = last.topk(2)
        if best.values[0] - best.values[1] < MIN_MARGIN:
            return None
        target.append(int(best.indices[0]))
        if not paints and target[-1] == IDS["sep_token_id"]:
            break
    return target, model.logits(source, target[:-1], paints)


def make_model(config, dtype, seed):
    torch.manual_seed(seed)
    model = Model(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Larger than at the start of a training, so that every part of the model is visible.
            centre = 1.0 if "LayerNorm.weight" in name else 0.0
            weight.copy_(centre + 0.25 * torch.randn(weight.shape, generator=generator))
            weight.copy_(weight.to(dtype).float())
        # transformers keeps one bias under two names.
        model.head.decoder.bias = model.head.bias
    return model


def make_vqvae(seed, codes):
    torch.manual_seed(seed)
    model = diffusers.VQModel(
        block_out_channels=[4, 4, 8, 8],
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        layers_per_block=1,
        latent_channels=6,
        norm_num_groups=4,
        num_vq_embeddings=codes,
        vq_embed_dim=6,
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() > 1:
                weight.copy_(noise / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * noise + (1 if "norm" in name and "weight" in name else 0))
        model.quantize.embedding.weight.mul_(2)
    return model


@torch.inference_mode()
def read_picture(vqvae, rgb):
    pictures = rgb.permute(2, 0, 1)[None].float() / 127.5 - 1
    _, _, (_, _, codes) = vqvae.quantize(vqvae.encode(pictures).latents)
    return codes.flatten().tolist()


@torch.inference_mode()
def draw_picture(vqvae, codes, grid):
    quantized = vqvae.quantize.get_codebook_entry(
        torch.tensor(codes), (1, *grid, vqvae.config.vq_embed_dim)
    )
    pictures = vqvae.decode(quantized, force_not_quantize=True).sample
    unit = (pictures / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0)
    return (unit * 255).round().to(torch.uint8).contiguous()


def answers(model, lengths, vqvae, generator):
    c, golden = model.c, {}

    def draw(low, high, count):
        return torch.randint(low, high, (count,), generator=generator).tolist()

    for i, length in enumerate(lengths):
        inner = draw(6, c["text_vocab_size"], max(0, length - 2))
        source = [IDS["cls_token_id"], *inner, IDS["sep_token_id"]][:length]
        painted = greedy(model, source, True)
        codes = draw(0, c["image_vocab_size"], math.prod(c["image_grid"]))
        if vqvae is not None:
            size = [8 * side for side in c["image_grid"]]
            rgb = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
            codes, golden[f"write.{i}.rgb"] = read_picture(vqvae, rgb), rgb
        written = greedy(model, codes, False)
        if painted is None or written is None:
            return None
        golden[f"paint.{i}.source"] = torch.tensor(source, dtype=torch.int32)
        golden[f"paint.{i}.codes"] = torch.tensor(painted[0], dtype=torch.int32)
        golden[f"paint.{i}.logits"] = painted[1].contiguous()
        golden[f"write.{i}.codes"] = torch.tensor(codes, dtype=torch.int32)
        golden[f"write.{i}.ids"] = torch.tensor(written[0], dtype=torch.int32)
        golden[f"write.{i}.logits"] = written[1].contiguous()
        if vqvae is not None:
            golden[f"paint.{i}.rgb"] = draw_picture(vqvae, painted[0], c["image_grid"])
    return golden


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_pipeline(folder, vqvae):
    vqvae.save_pretrained(folder / "vqvae")
    write_json(
        folder / "model_index.json",
        {
            "_class_name": "ErnieViLGPipeline",
            "tokenizer": ["transformers", "BertTokenizer"],
            "transformer": ["hanmo", "ErnieViLGModel"],
            "vqvae": ["diffusers", "VQModel"],
        },
    )
    write_json(folder / "generation_config.json", {"temperature": 1.0, "top_k": 20, "top_p": 0.9})
    (folder / "tokenizer").mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[BOI]", "[BOT]"]
    rest = [chr(ord("一") + i) for i in range(BASE["text_vocab_size"] - len(special) - 1)]
    vocabulary = "\n".join([*special, *rest, "[MASK]"]) + "\n"
    (folder / "tokenizer" / "vocab.txt").write_text(vocabulary)
    write_json(
        folder / "tokenizer" / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 20},
    )


def main():
    for name, (fields, dtype, layout, lengths) in CASES.items():
        config = {**BASE, **fields}
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        vqvae = make_vqvae(7, config["image_vocab_size"]) if name == "whole" else None
        for seed in range(1, 200):
            model = make_model(config, dtype, seed)
            golden = answers(model, lengths, vqvae, torch.Generator().manual_seed(seed))
            if golden is not None:
                break
        assert golden is not None, name
        inner = folder if vqvae is None else folder / "transformer"
        inner.mkdir(exist_ok=True)
        write_json(inner / "config.json", config)
        state = {k: v.to(dtype).contiguous() for k, v in model.published().items()}
        save_weights(inner, state, layout)
        if vqvae is not None:
            write_pipeline(folder, vqvae)
        safetensors.torch.save_file(golden, folder / "golden.safetensors")
        spread = max(float(v.abs().max()) for k, v in golden.items() if k.endswith("logits"))
        print(name, "seed", seed, "logits to", spread, sorted({len(v) for v in golden.values()}))
    write_versions(HERE)


if __name__ == "__main__":
    main()
