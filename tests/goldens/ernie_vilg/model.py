"""The ERNIE-ViLG transformer of docs/ernie-vilg.md, over whole sequences, from transformers' parts.

Layers with norms after them are transformers' BertEncoder and its head of words is
BertLMPredictionHead, both given the whole mask; the other two positions of norms are computed here
from the same modules. Masks are written as the document words them, a pair of tokens at a time.
"""

import torch
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder, BertLMPredictionHead

SOURCE_TEXT, TARGET_PICTURE, SOURCE_PICTURE, TARGET_TEXT = range(4)
IDS = dict(cls_token_id=2, sep_token_id=3, pad_token_id=0, boi_token_id=4, bot_token_id=5)


class Model(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.c = config
        h = c["hidden_size"]
        bert = BertConfig(
            vocab_size=c["text_vocab_size"],
            hidden_size=h,
            num_hidden_layers=c["num_hidden_layers"],
            num_attention_heads=c["num_attention_heads"],
            intermediate_size=c["intermediate_size"],
            hidden_act=c["hidden_act"],
            layer_norm_eps=c["layer_norm_eps"],
            attn_implementation="eager",
        )
        self.embeddings = torch.nn.ModuleDict(
            {
                name: torch.nn.Embedding(rows, h)
                for name, rows in (
                    ("word_embeddings", c["text_vocab_size"]),
                    ("image_embeddings", c["image_vocab_size"]),
                    ("position_embeddings", c["max_text_length"] + 1),
                    ("row_embeddings", c["image_grid"][0]),
                    ("column_embeddings", c["image_grid"][1]),
                    ("token_type_embeddings", 4),
                )
            }
        )
        self.embeddings["LayerNorm"] = torch.nn.LayerNorm(h, c["layer_norm_eps"])
        self.encoder = BertEncoder(bert)
        self.head = BertLMPredictionHead(bert)
        self.image_head = torch.nn.Linear(h, c["image_vocab_size"])
        norm = lambda: torch.nn.LayerNorm(h, c["layer_norm_eps"])  # noqa: E731
        if c["norm_position"] != "post":
            self.encoder.LayerNorm = norm()
        if c["norm_position"] == "sandwich":
            for layer in self.encoder.layer:
                layer.attention.LayerNorm = norm()
                layer.intermediate.LayerNorm = norm()
        if c["tie_word_embeddings"]:
            self.head.decoder.weight = self.embeddings["word_embeddings"].weight

    def published(self):
        """Weights by the document's names."""
        state = {}
        for name, tensor in self.state_dict().items():
            name = name.replace("head.transform.", "lm_head.").replace(
                "head.decoder.", "lm_head.decoder."
            )
            if name != "head.bias":
                state[name] = tensor
        if self.c["tie_word_embeddings"]:
            del state["lm_head.decoder.weight"]
        return state

    def kind(self, layer):
        pattern = self.c["attention_pattern"]
        if pattern is None:
            return "all"
        if pattern.get("conv_last", True) and layer == self.c["num_hidden_layers"] - 1:
            return "window"
        column = layer % pattern.get("cycle", 4) == pattern.get("column_at", 2)
        return "column" if column else "row"

    def mask(self, layer, tokens):
        """Additive [n, n]; `tokens` are (is target, raster number or None)."""
        columns = self.c["image_grid"][1]
        reach = ((self.c["attention_pattern"] or {}).get("conv_kernel", 11) - 1) // 2
        kind = self.kind(layer)

        def sees(i, j):
            (target, a), (of_target, b) = tokens[i], tokens[j]
            if of_target and (not target or j > i):
                return False
            if a is None or b is None or kind == "all":
                return True
            (row, column), (other_row, other_column) = divmod(a, columns), divmod(b, columns)
            if kind == "window":
                return abs(row - other_row) <= reach and abs(column - other_column) <= reach
            return row == other_row if kind == "row" else column == other_column

        n = range(len(tokens))
        return torch.tensor([[0.0 if sees(i, j) else -torch.inf for j in n] for i in n])

    def embed(self, tokens):
        """`tokens`: (table, id, place, type) with place a position or (row, column)."""
        e = self.embeddings
        rows = []
        for table, token, place, kind in tokens:
            row = e[table].weight[token] + e["token_type_embeddings"].weight[kind]
            if table == "word_embeddings":
                row = row + e["position_embeddings"].weight[place]
            else:
                row = row + e["row_embeddings"].weight[place[0]]
                row = row + e["column_embeddings"].weight[place[1]]
            rows.append(row)
        return e["LayerNorm"](torch.stack(rows))[None]

    def run_layer(self, layer, x, mask):
        attention, inner, out = layer.attention, layer.intermediate, layer.output
        if self.c["norm_position"] == "post":
            y = layer(x, mask)
            return y[0] if isinstance(y, tuple) else y

        def attend(y):
            return attention.output.dense(attention.self(y, mask)[0])

        def feed(y):
            return out.dense(inner(y))

        if self.c["norm_position"] == "pre":
            x = x + attend(attention.output.LayerNorm(x))
            return x + feed(out.LayerNorm(x))
        x = x + attention.output.LayerNorm(attend(attention.LayerNorm(x)))
        return x + out.LayerNorm(feed(inner.LayerNorm(x)))

    def forward(self, embedded, tokens):
        x = embedded
        for i, layer in enumerate(self.encoder.layer):
            x = self.run_layer(layer, x, self.mask(i, tokens)[None, None])
        return self.encoder.LayerNorm(x) if self.c["norm_position"] != "post" else x

    def sequence(self, source, target, paints):
        """Embedded tokens and what `mask` needs; `target` without its first token."""
        columns = self.c["image_grid"][1]

        def words(ids, first, kind):
            return [("word_embeddings", t, first + i, kind) for i, t in enumerate(ids)]

        def picture(codes, kind):
            return [
                ("image_embeddings", code, divmod(i, columns), kind) for i, code in enumerate(codes)
            ]

        if paints:
            begin = words([IDS["boi_token_id"]], 0, TARGET_PICTURE)
            tokens = words(source, 0, SOURCE_TEXT) + begin + picture(target, TARGET_PICTURE)
        else:
            begin = words([IDS["bot_token_id"]], 0, TARGET_TEXT)
            tokens = picture(source, SOURCE_PICTURE) + begin + words(target, 1, TARGET_TEXT)
        raster = list(range(len(source))) + [None] * (1 + len(target))
        if paints:
            raster = [None] * (len(source) + 1) + list(range(len(target)))
        is_target = [i >= len(source) for i in range(len(tokens))]
        return self.embed(tokens), list(zip(is_target, raster))

    def logits(self, source, target, paints):
        """Of the tokens from BOI or BOT on."""
        embedded, tokens = self.sequence(source, target, paints)
        last = self(embedded, tokens)[:, len(source) :]
        return (self.image_head(last) if paints else self.head(last))[0]
