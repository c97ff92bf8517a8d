"""Paints and describes with the trained network, one token a step for many rows at once."""

import torch
from torch.nn.utils.rnn import pad_sequence

from network import SOURCE_IMAGE, SOURCE_TEXT, TARGET_IMAGE, TARGET_TEXT, attend
from training import to_pictures, to_tensor
from wording import BOI, BOT, MAX_LENGTH, SEP, VOCABULARY, source_ids


def visible(config, kind, causal):
    """Which picture tokens each picture token sees: bool [n, n]."""
    rows, columns = config.image_grid
    at = torch.arange(rows * columns)
    row, column = at // columns, at % columns
    if kind == "window":
        reach = config.conv_kernel // 2
        seen = ((row[:, None] - row).abs() <= reach) & ((column[:, None] - column).abs() <= reach)
    else:
        line = row if kind == "row" else column
        seen = line[:, None] == line
    return seen & (at[:, None] >= at) if causal else seen


class Cache:
    """Keys and values of all layers: text slots first, then picture slots."""

    def __init__(self, network, rows, slots):
        c = network.config
        width = c.hidden_size // c.num_attention_heads
        self.network = network
        self.kv = torch.zeros(c.num_hidden_layers, 2, rows, c.num_attention_heads, slots, width)

    def run(self, x, at, masks):
        """`x` [rows, t, hidden] into slots `at` (a slice); `masks` (added to the scores, against all
        slots) by a layer's kind. Returns the normed last states."""
        for layer, kv in zip(self.network.encoder.layer, self.kv):
            q, k, v = layer.qkv(x)
            kv[0, :, :, at], kv[1, :, :, at] = k, v
            x = layer.finish(x, attend(q, kv[0], kv[1], masks[layer.kind]))
        return self.network.encoder.LayerNorm(x)


def _masks(seen):
    return {k: torch.where(v, 0.0, -torch.inf) for k, v in seen.items()}


def draw(logits, temperature, top_k, top_p, generators):
    """One id a row; each row draws from its own generator."""
    if temperature == 0:
        return logits.argmax(-1)
    values, ids = (logits / temperature).topk(top_k or logits.shape[-1])
    shares = values.softmax(-1)
    shares = shares * (shares.cumsum(-1) - shares < top_p)
    picks = [torch.multinomial(s, 1, generator=g) for s, g in zip(shares, generators)]
    return ids.gather(1, torch.stack(picks))[:, 0]


@torch.no_grad()
def paint(network, prompts, seeds, temperature=1.0, top_k=0, top_p=1.0):
    """Picture tokens [n, rows * columns] of `prompts`, each drawn with its own seed."""
    c = network.config
    rows, columns = c.image_grid
    count = rows * columns
    sources = [torch.tensor(source_ids(p)) for p in prompts]
    lengths = torch.tensor([len(s) for s in sources])
    ids = pad_sequence(sources, batch_first=True)
    t, n = ids.shape[1], len(ids)
    kinds = {k: visible(c, k, True) for k in ("row", "column", "window")}
    cache = Cache(network, n, t + 1 + count)
    text = (torch.arange(t) < lengths[:, None])[:, None, None]  # [n, 1, 1, t]
    hidden = torch.zeros(n, 1, 1, 1 + count, dtype=bool)
    x = network.embeddings.text(ids, torch.arange(t), torch.tensor(SOURCE_TEXT))
    cache.run(x, slice(0, t), _masks(dict.fromkeys(kinds, torch.cat([text, hidden], -1))))
    seen = torch.cat([text, hidden], -1)
    seen[..., t] = True
    boi = torch.full((n, 1), BOI)
    x = network.embeddings.text(boi, torch.zeros(1, dtype=int), torch.tensor(TARGET_IMAGE))
    x = cache.run(x, slice(t, t + 1), _masks(dict.fromkeys(kinds, seen)))
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    codes = []
    for i in range(count):
        logits = network.picture_logits(x[:, -1])
        codes.append(draw(logits, temperature, top_k, top_p, generators))
        if i + 1 == count:
            break
        x = network.embeddings.image(codes[-1][:, None], torch.tensor([i]), TARGET_IMAGE)
        now = {}
        for kind, near in kinds.items():
            seen[..., t + 1 :] = near[i]
            now[kind] = torch.where(seen, 0.0, -torch.inf)
        x = cache.run(x, slice(t + 1 + i, t + 2 + i), now)
    return torch.stack(codes, 1)


@torch.no_grad()
def write(network, codes):
    """The greedy caption of each row of picture tokens [n, rows * columns], as ids without [SEP]."""
    c = network.config
    n, count = codes.shape
    kinds = {k: visible(c, k, False) for k in ("row", "column", "window")}
    cache = Cache(network, n, count + MAX_LENGTH + 1)
    blank = torch.zeros(count, MAX_LENGTH + 1, dtype=bool)
    x = network.embeddings.image(codes, torch.arange(count), SOURCE_IMAGE)
    cache.run(x, slice(0, count), _masks({k: torch.cat([v, blank], 1) for k, v in kinds.items()}))
    last, words = torch.full((n, 1), BOT), []
    for i in range(MAX_LENGTH):
        x = network.embeddings.text(last, torch.tensor([i]), torch.tensor(TARGET_TEXT))
        seen = torch.arange(count + MAX_LENGTH + 1)[None] <= count + i
        x = cache.run(x, slice(count + i, count + i + 1), _masks(dict.fromkeys(kinds, seen)))
        last = network.text_logits(x).argmax(-1)
        words.append(last)
        if (torch.cat(words, 1) == SEP).any(1).all():
            break
    rows = torch.cat(words, 1).tolist()
    return [row[: row.index(SEP)] if SEP in row else row for row in rows]


def describe(network, codes):
    """`write` as text."""
    return ["".join(VOCABULARY[i] for i in row) for row in write(network, codes)]


@torch.no_grad()
def decode(vqvae, codes):
    """Pictures uint8 [n, h, w, 3] of picture tokens [n, rows * columns]."""
    side = round(codes.shape[1] ** 0.5)
    z = vqvae.quantize.embedding(codes).unflatten(1, (side, side)).permute(0, 3, 1, 2)
    return torch.cat([to_pictures(vqvae.decode(p, True).sample) for p in z.split(16)])


@torch.no_grad()
def reconstruct(vqvae, pictures):
    """Pictures uint8 [n, h, w, 3] as the VQModel gives them back."""
    return torch.cat([to_pictures(vqvae(to_tensor(p)).sample) for p in pictures.split(16)])
