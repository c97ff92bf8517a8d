"""The ERNIE-ViLG transformer: one pre-norm encoder that paints (text to picture) and describes (back).

Source tokens see each other; a target token sees the source and the targets before it. Among picture
tokens attention is sparse: within a row, within a column (layers with i % cycle == column_at), within a
window (the last layer). Text and BOI are visible to every picture token that is a target.

Tensor names and numbers are those of docs/ernie-vilg.md.
"""

import dataclasses
import json
import math
import os
import pathlib

import torch
import torch.nn.functional as functional
from safetensors.torch import load_file, save_file
from torch import nn

from wording import BOI, BOT, VOCABULARY

SOURCE_TEXT, TARGET_IMAGE, SOURCE_IMAGE, TARGET_TEXT = range(4)


@dataclasses.dataclass(frozen=True)
class Config:
    """The fields of transformer/config.json that shape the network."""

    text_vocab_size: int
    image_vocab_size: int
    boi_token_id: int
    bot_token_id: int
    cls_token_id: int = 2
    sep_token_id: int = 3
    pad_token_id: int = 0
    hidden_size: int = 160
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    intermediate_size: int = 640
    layer_norm_eps: float = 1e-5
    max_text_length: int = 64
    image_grid: tuple = (16, 16)
    cycle: int = 4
    column_at: int = 2
    conv_kernel: int = 31  # of a 16 x 16 grid everything: see README.md

    def kind(self, layer):
        """Which picture tokens a picture token of this layer sees."""
        if layer == self.num_hidden_layers - 1:
            return "window"
        return "column" if layer % self.cycle == self.column_at else "row"


def write_config(config):
    """transformer/config.json as a dictionary."""
    fields = dataclasses.asdict(config)
    pattern = {k: fields.pop(k) for k in ("cycle", "column_at", "conv_kernel")}
    return {
        "architectures": ["ErnieViLGModel"],
        "model_type": "ernie_vilg",
        **fields,
        "image_grid": list(config.image_grid),
        "attention_pattern": {**pattern, "conv_last": True},
        "hidden_act": "gelu",
        "norm_position": "pre",
        "token_type_vocab_size": 4,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }


def read_config(values):
    fields = {**values, **values["attention_pattern"], "image_grid": tuple(values["image_grid"])}
    return Config(**{f.name: fields[f.name] for f in dataclasses.fields(Config)})


class Embeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        rows, columns = c.image_grid
        self.word_embeddings = nn.Embedding(c.text_vocab_size, c.hidden_size)
        self.image_embeddings = nn.Embedding(c.image_vocab_size, c.hidden_size)
        self.position_embeddings = nn.Embedding(c.max_text_length + 1, c.hidden_size)
        self.row_embeddings = nn.Embedding(rows, c.hidden_size)
        self.column_embeddings = nn.Embedding(columns, c.hidden_size)
        self.token_type_embeddings = nn.Embedding(4, c.hidden_size)
        self.LayerNorm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.columns = columns
        for table in self.children():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.02)

    def text(self, ids, positions, types):
        """[n, t] ids at `positions`, of token types `types` (each broadcastable) -> [n, t, hidden]."""
        return self.LayerNorm(
            self.word_embeddings(ids)
            + self.position_embeddings(positions)
            + self.token_type_embeddings(types)
        )

    def image(self, codes, positions, kind):
        """[n, t] codes at raster `positions` [t] -> [n, t, hidden]."""
        place = self.row_embeddings(positions // self.columns)
        place = place + self.column_embeddings(positions % self.columns)
        place = place + self.token_type_embeddings.weight[kind]
        return self.LayerNorm(self.image_embeddings(codes) + place)


def _named(**parts):
    return nn.ModuleDict(parts)


class Layer(nn.Module):
    """BERT's tensor names; the norms stand before attention and before the feed-forward part."""

    def __init__(self, c, kind):
        super().__init__()
        h, eps = c.hidden_size, c.layer_norm_eps
        names = ("query", "key", "value")
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(h, h) for name in names}),
                "output": _named(dense=nn.Linear(h, h), LayerNorm=nn.LayerNorm(h, eps)),
            }
        )
        self.intermediate = _named(dense=nn.Linear(h, c.intermediate_size))
        self.output = _named(
            dense=nn.Linear(c.intermediate_size, h), LayerNorm=nn.LayerNorm(h, eps)
        )
        self.heads, self.kind = c.num_attention_heads, kind
        for dense in (self.attention["output"]["dense"], self.output["dense"]):
            nn.init.zeros_(dense.weight)
            nn.init.zeros_(dense.bias)

    def qkv(self, x):
        """Three of [n, heads, t, width]; queries are scaled."""
        x = self.attention["output"]["LayerNorm"](x)
        parts = self.attention["self"].values()  # as one product
        weight, bias = torch.cat([p.weight for p in parts]), torch.cat([p.bias for p in parts])
        x = functional.linear(x, weight, bias).unflatten(-1, (3, self.heads, -1))
        q, k, v = x.permute(2, 0, 3, 1, 4)
        return q * (1 / math.sqrt(q.shape[-1])), k, v

    def finish(self, x, attended):
        """The rest of the layer after `attended` [n, heads, t, width]."""
        x = x + self.attention["output"]["dense"](attended.transpose(1, 2).flatten(2))
        inner = self.intermediate["dense"](self.output["LayerNorm"](x))
        return x + self.output["dense"](functional.gelu(inner))


def attend(q, k, v, mask):
    """Plain attention of scaled queries; `mask` is added to the scores."""
    return ((q @ k.mT + mask).softmax(-1)) @ v


def _additive(visible):
    return torch.zeros(visible.shape).masked_fill(~visible, -1e4)


class Network(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.embeddings = Embeddings(c)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(c, c.kind(i)) for i in range(c.num_hidden_layers))
        self.encoder.LayerNorm = nn.LayerNorm(c.hidden_size, c.layer_norm_eps)
        self.lm_head = _named(
            dense=nn.Linear(c.hidden_size, c.hidden_size),
            LayerNorm=nn.LayerNorm(c.hidden_size, c.layer_norm_eps),
            decoder=nn.Linear(c.hidden_size, c.text_vocab_size),
        )
        self.lm_head["decoder"].weight = self.embeddings.word_embeddings.weight
        self.image_head = nn.Linear(c.hidden_size, c.image_vocab_size)
        nn.init.normal_(self.image_head.weight, std=0.02)
        nn.init.zeros_(self.image_head.bias)
        rows, columns = c.image_grid
        at = torch.arange(rows * columns)
        near = ((at[:, None] // columns - at // columns).abs() <= c.conv_kernel // 2) & (
            (at[:, None] % columns - at % columns).abs() <= c.conv_kernel // 2
        )
        earlier = at[:, None] >= at
        side = torch.arange(max(rows, columns))
        buffers = {
            "window": _additive(near),
            "window_causal": _additive(near & earlier),
            "line_causal": _additive(side[:, None] >= side),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    @classmethod
    def load(cls, folder, **changes):
        """The network of a published folder's transformer/, in float32, with `changes` of its Config."""
        folder = pathlib.Path(folder)
        config = read_config(json.loads((folder / "config.json").read_text()))
        network = cls(dataclasses.replace(config, **changes))
        network.read(load_file(folder / "model.safetensors"))
        return network

    def read(self, weights):
        """Takes over what `save` wrote."""
        tied = {"lm_head.decoder.weight": weights["embeddings.word_embeddings.weight"]}
        self.load_state_dict({k: v.float() for k, v in (weights | tied).items()})

    def save(self, path, dtype=torch.float32):
        """Writes the weights; the tied one once."""
        weights = {k: v.to(dtype).contiguous() for k, v in self.state_dict().items()}
        del weights["lm_head.decoder.weight"]
        part = f"{path}.part"
        save_file(weights, part, metadata={"format": "pt"})
        os.replace(part, path)

    def text_logits(self, x):
        x = functional.gelu(self.lm_head["dense"](x))
        return self.lm_head["decoder"](self.lm_head["LayerNorm"](x))

    def picture_logits(self, x):
        return self.image_head(x)

    def _lines(self, x, kind):
        """Picture tokens [n, heads, rows * columns, d] by line: [n, heads, lines, side, d]."""
        x = x.unflatten(2, self.config.image_grid)
        return x.transpose(2, 3) if kind == "column" else x

    def _flat(self, x, kind):
        return (x.transpose(2, 3) if kind == "column" else x).flatten(2, 3)

    def _within(self, q, k, v, kind, causal):
        """Attention among picture tokens before its softmax, and how to use its shares."""
        if kind == "window":
            scores = q @ k.mT + (self.window_causal if causal else self.window).to(q.dtype)
            return scores, lambda shares: shares @ v
        lines = [self._lines(x, kind) for x in (q, k, v)]
        scores = lines[0] @ lines[1].mT
        if causal:
            scores = scores + self.line_causal.to(q.dtype)
        side = scores.shape[-1]

        def use(shares):
            shares = self._lines(shares, kind).reshape(*scores.shape[:-1], side)
            return self._flat(shares @ lines[2], kind)

        return self._flat(scores, kind), use

    def paint(self, ids, lengths, codes):
        """Logits of every picture token [n, rows * columns, image_vocab_size].

        `ids` [n, t]: the source text with [CLS] and [SEP], right after it BOI, padding up to t;
        `lengths` [n]: tokens of the source; `codes` [n, rows * columns] (the last one is not read).
        """
        t = ids.shape[1]
        at = torch.arange(t)
        boi = at == lengths[:, None]
        types = torch.where(boi, TARGET_IMAGE, SOURCE_TEXT)
        text = self.embeddings.text(ids, torch.where(boi, 0, at), types)
        picture = self.embeddings.image(codes, torch.arange(codes.shape[1]), TARGET_IMAGE)
        x = torch.cat([text, picture], 1)
        source = at < lengths[:, None]
        text_mask = _additive(source[:, None] | (boi[:, :, None] & boi[:, None]))[:, None]
        seen_mask = _additive(source | boi)[:, None, None]
        for layer in self.encoder.layer:
            q, k, v = layer.qkv(x)
            own = attend(q[:, :, :t], k[:, :, :t], v[:, :, :t], text_mask.to(q.dtype))
            scores, use = self._within(*(s[:, :, t:] for s in (q, k, v)), layer.kind, True)
            to_text = q[:, :, t:] @ k[:, :, :t].mT + seen_mask.to(q.dtype)
            shares = torch.cat([to_text, scores], -1).softmax(-1).to(v.dtype)
            painted = shares[..., :t] @ v[:, :, :t] + use(shares[..., t:])
            x = layer.finish(x, torch.cat([own, painted], 2))
        # The token at BOI tells the first picture token, picture token i the one after it.
        first = x[torch.arange(len(x)), lengths][:, None]
        return self.picture_logits(self.encoder.LayerNorm(torch.cat([first, x[:, t:-1]], 1)))

    def describe(self, codes, ids):
        """Logits [n, t, text_vocab_size] of the caption's tokens after each of `ids` [n, t]: BOT, words."""
        n = codes.shape[1]
        at = torch.arange(ids.shape[1])
        text = self.embeddings.text(ids, at, torch.tensor(TARGET_TEXT))
        picture = self.embeddings.image(codes, torch.arange(n), SOURCE_IMAGE)
        x = torch.cat([picture, text], 1)
        mask = _additive(torch.cat([torch.ones(len(at), n, dtype=bool), at[:, None] >= at], 1))
        for layer in self.encoder.layer:
            q, k, v = layer.qkv(x)
            scores, use = self._within(*(s[:, :, :n] for s in (q, k, v)), layer.kind, False)
            seen = use(scores.softmax(-1).to(v.dtype))
            told = attend(q[:, :, n:], k, v, mask.to(q.dtype))
            x = layer.finish(x, torch.cat([seen, told], 2))
        return self.text_logits(self.encoder.LayerNorm(x[:, n:]))


def build(codes):
    """An untrained network for the recipe's words and a codebook of `codes`."""
    vocabulary = {"text_vocab_size": len(VOCABULARY), "image_vocab_size": codes}
    return Network(Config(**vocabulary, boi_token_id=BOI, bot_token_id=BOT))
