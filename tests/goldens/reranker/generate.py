"""Records tiny random rerankers in the layouts of docs/reranker.md, and what transformers answers.

    python generate.py            # writes the folders beside this file

Each folder is a `reranker/` of a picture model with a vocabulary of its own, and golden.safetensors
(computed in float32 from the stored weights): `ids_I` (int64, framed) and `text_I` (features before
they are normalised), `rgb_S` (uint8, pictures of one size), `prepared_S` (float32, by the Pillow
image processors), `picture_S` (features) and `scores_S` (cosines, texts by pictures). The pictures
of the last S are those that `../ernie_vilg/whole` paints.
`versions.json` names the versions that made them.
"""

import json
import pathlib
import shutil

import numpy
import PIL
import safetensors.torch
import torch
import transformers
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import (
    ChineseCLIPImageProcessorPil,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

HERE = pathlib.Path(__file__).parent
PAINTED = HERE.parent / "ernie_vilg/whole/golden.safetensors"
# The words of models/recipes/landscape, so that the prompts of its model mean something here.
WORDS = "水墨山寒冬黄昏清晨秋夜两座青一叶扁舟金岸边梅树天上飞鸟红日古松峰，"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(WORDS)]
TEXTS = ["水墨山水，两座青山，一叶扁舟", "寒冬", ""]
SIZES = [(64, 64), (50, 83), (72, 40), (20, 20)]  # height, width


def text_config(**changes):
    return (
        dict(
            vocab_size=len(VOCABULARY),
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=32,
        )
        | changes
    )


def vision_config(**changes):
    return (
        dict(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            image_size=32,
            patch_size=8,
        )
        | changes
    )


class ChineseClip:
    """ChineseCLIPModel as published."""

    name = "ChineseCLIPModel"
    processor = ChineseCLIPImageProcessorPil

    def __init__(self, projection_dim, text, vision):
        self.model = transformers.ChineseCLIPModel(
            transformers.ChineseCLIPConfig(
                text_config=text, vision_config=vision, projection_dim=projection_dim
            )
        )
        self.parts = [self.model]

    def text(self, ids):
        return self.model.get_text_features(ids).pooler_output

    def picture(self, pixels):
        return self.model.get_image_features(pixels).pooler_output

    def save(self, folder, dtype, binary):
        save_weights(folder, self.model.state_dict(), dtype, binary)
        save_json(folder / "config.json", self.model.config.to_dict())


class Taiyi:
    """Fengshenbang's TaiyiCLIPModel, trained through the pooler."""

    name = "TaiyiCLIPModel"
    processor = CLIPImageProcessorPil

    def __init__(self, projection_dim, text, vision):
        self.bert = transformers.BertModel(transformers.BertConfig(**text))
        self.vision = transformers.CLIPVisionModelWithProjection(
            transformers.CLIPVisionConfig(projection_dim=projection_dim, **vision)
        )
        self.projection = torch.nn.Linear(text["hidden_size"], projection_dim, bias=False)
        self.parts = [self.bert, self.vision, self.projection]

    def text(self, ids):
        return self.projection(self.bert(ids).pooler_output)

    def picture(self, pixels):
        return self.vision(pixels).image_embeds

    def save(self, folder, dtype, binary):
        state = {f"text_model.{name}": value for name, value in self.bert.state_dict().items()}
        state |= self.vision.state_dict()
        state["text_projection.weight"] = self.projection.weight
        state["logit_scale"] = torch.tensor(2.6592)
        save_weights(folder, state, dtype, binary)
        config = dict(
            architectures=["TaiyiCLIPModel"],
            text_pooling="pooler",
            projection_dim=self.projection.out_features,
            text_config=self.bert.config.to_dict(),
            vision_config=self.vision.config.to_dict(),
        )
        save_json(folder / "config.json", config)


class TaiyiRoberta:
    """Taiyi-CLIP-Roberta: the logits are the text's features; OpenAI's tower has its own folder."""

    name = "BertForSequenceClassification"
    processor = CLIPImageProcessorPil

    def __init__(self, projection_dim, text, vision):
        self.bert = transformers.BertForSequenceClassification(
            transformers.BertConfig(num_labels=projection_dim, **text)
        )
        self.clip = transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config=dict(
                    vocab_size=9,
                    hidden_size=8,
                    num_hidden_layers=1,
                    num_attention_heads=1,
                    intermediate_size=8,
                ),
                vision_config=vision,
                projection_dim=projection_dim,
            )
        )
        self.parts = [self.bert, self.clip]

    def text(self, ids):
        return self.bert(ids).logits

    def picture(self, pixels):
        return self.clip.get_image_features(pixels).pooler_output

    def save(self, folder, dtype, binary):
        save_weights(folder, self.bert.state_dict(), dtype, binary)
        save_json(folder / "config.json", self.bert.config.to_dict())
        tower = folder / "vision_model"
        tower.mkdir()
        save_weights(tower, self.clip.state_dict(), dtype, binary)
        save_json(tower / "config.json", self.clip.config.to_dict())


# name: (class, features, text's config, vision's config, storage type, .bin, preprocessor)
CASES = {
    "chinese_clip": (
        ChineseClip,
        20,
        text_config(),
        vision_config(),
        torch.float16,
        False,
        # As OFA-Sys publishes it: both sides are given.
        dict(
            do_resize=True,
            do_center_crop=False,
            size=dict(height=32, width=32),
            resample=3,
            image_mean=[0.48145466, 0.4578275, 0.40821073],
            image_std=[0.26862954, 0.26130258, 0.27577711],
        ),
    ),
    "chinese_clip_gelu": (
        ChineseClip,
        16,
        text_config(hidden_size=30, num_hidden_layers=1, hidden_act="gelu_new"),
        vision_config(hidden_size=18, num_attention_heads=2, image_size=21, patch_size=7)
        | dict(hidden_act="gelu", layer_norm_eps=1e-6),
        torch.float32,
        True,
        dict(
            size=dict(shortest_edge=27),
            crop_size=dict(height=21, width=21),
            resample=3,
            image_mean=[0.5, 0.4, 0.3],
            image_std=[0.5, 0.25, 0.2],
        ),
    ),
    "taiyi": (Taiyi, 12, text_config(), vision_config(), torch.float32, False, None),
    "taiyi_roberta": (TaiyiRoberta, 14, text_config(), vision_config(), torch.float32, False, None),
}


def save_weights(folder, state, dtype, binary):
    state = {name: value.detach().to(dtype).contiguous() for name, value in state.items()}
    if binary:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(state, folder / "model.safetensors")


def save_json(path, content):
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def randomize(parts, dtype, generator):
    for part in parts:
        for weight in part.parameters():
            scale = 0.1 if weight.dim() == 1 else 0.2
            start = 1.0 if weight.dim() == 1 and float(weight.mean()) > 0.5 else 0.0
            weight.copy_(start + scale * torch.randn(weight.shape, generator=generator))
        part.to(dtype).float().eval()


def paint(size, generator):
    """Two pictures with edges, waves and noise, all values in them."""
    height, width = size
    rows, columns = numpy.mgrid[0:height, 0:width]
    noise = torch.rand(2, height, width, 3, generator=generator).numpy()
    waves = numpy.sin(rows / 5)[None, :, :, None] + numpy.cos(columns / 3)[None, :, :, None]
    pictures = 0.5 + 0.3 * waves + 0.5 * (noise - 0.5)
    pictures[1, :, width // 3 :, :2] = 1 - pictures[1, :, width // 3 :, :2]
    pictures[0, height // 2 : height // 2 + 3] = 1
    return (255 * pictures.clip(0, 1)).round().astype(numpy.uint8)


def painted_by_tokens():
    golden = safetensors.torch.load_file(PAINTED)
    return numpy.stack([golden[f"paint.{i}.rgb"].numpy() for i in range(2)])


def record(reranker, tokenizer, settings, generator):
    golden = {}
    processor = reranker.processor(**settings)
    texts = []
    for index, words in enumerate(TEXTS):
        ids = torch.tensor([tokenizer(words).input_ids])
        texts.append(reranker.text(ids))
        golden |= {f"ids_{index}": ids[0], f"text_{index}": texts[-1]}
    shown = [*(paint(size, generator) for size in SIZES), painted_by_tokens()]
    for index, rgb in enumerate(shown):
        pictures = [PIL.Image.fromarray(picture) for picture in rgb]
        prepared = torch.from_numpy(
            numpy.stack(processor(pictures, return_tensors="np").pixel_values)
        )
        features = reranker.picture(prepared)
        scores = torch.nn.functional.cosine_similarity(torch.cat(texts)[:, None], features, dim=-1)
        golden |= {
            f"rgb_{index}": torch.from_numpy(rgb),
            f"prepared_{index}": prepared,
            f"picture_{index}": features,
            f"scores_{index}": scores,
        }
    return {name: value.contiguous() for name, value in golden.items()}


@torch.inference_mode()
def main():
    for seed, (name, case) in enumerate(CASES.items()):
        make, features, text, vision, dtype, binary, settings = case
        generator = torch.Generator().manual_seed(seed)
        reranker = make(features, text, vision)
        randomize(reranker.parts, dtype, generator)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        reranker.save(folder, dtype, binary)
        (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
        if settings is None:  # what absent keys mean
            settings = dict(
                size=dict(shortest_edge=vision["image_size"]),
                crop_size=dict(height=vision["image_size"], width=vision["image_size"]),
            )
        else:
            save_json(folder / "preprocessor_config.json", settings)
        tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"))
        golden = record(reranker, tokenizer, settings, generator)
        safetensors.torch.save_file(golden, folder / "golden.safetensors")
        print(name, reranker.name, golden["ids_0"].tolist(), golden["scores_0"].tolist())
    versions = dict(
        transformers=transformers.__version__, torch=torch.__version__, pillow=PIL.__version__
    )
    (HERE / "versions.json").write_text(json.dumps(versions) + "\n")


if __name__ == "__main__":
    main()
