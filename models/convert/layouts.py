"""The tensors that a layout has, by its config.json: name -> shape."""


def _ernie_vilg(config):
    """docs/ernie-vilg.md, "Tensors"."""
    width, inner = config["hidden_size"], config.get("intermediate_size", 4 * config["hidden_size"])
    words, codes = config["text_vocab_size"], config["image_vocab_size"]
    rows, columns = config["image_grid"]
    norm_position = config.get("norm_position", "post")
    found = {
        "embeddings.word_embeddings.weight": (words, width),
        "embeddings.image_embeddings.weight": (codes, width),
        "embeddings.position_embeddings.weight": (config["max_text_length"] + 1, width),
        "embeddings.row_embeddings.weight": (rows, width),
        "embeddings.column_embeddings.weight": (columns, width),
        "embeddings.token_type_embeddings.weight": (config.get("token_type_vocab_size", 4), width),
    }

    def linear(name, outputs, inputs):
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name):
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

    norm("embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            linear(f"{at}.attention.self.{part}", width, width)
        linear(f"{at}.attention.output.dense", width, width)
        linear(f"{at}.intermediate.dense", inner, width)
        linear(f"{at}.output.dense", width, inner)
        norm(f"{at}.attention.output.LayerNorm")
        norm(f"{at}.output.LayerNorm")
        if norm_position == "sandwich":
            norm(f"{at}.attention.LayerNorm")
            norm(f"{at}.intermediate.LayerNorm")
    if norm_position != "post":
        norm("encoder.LayerNorm")
    linear("lm_head.dense", width, width)
    norm("lm_head.LayerNorm")
    found["lm_head.decoder.bias"] = (words,)
    if not config.get("tie_word_embeddings", True):
        found["lm_head.decoder.weight"] = (words, width)
    linear("image_head", codes, width)
    return found


def _bert(config):
    """A text encoder: transformers' BertModel without its pooler."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    found = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        for name, outputs, inputs in (
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ):
            found[f"{at}.{name}.weight"], found[f"{at}.{name}.bias"] = (outputs, inputs), (outputs,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found[f"{at}.{name}.weight"] = found[f"{at}.{name}.bias"] = (width,)
    return found


LAYOUTS = {"ernie_vilg": _ernie_vilg, "bert": _bert, "ernie": _bert}


def expected_tensors(config):
    kind = config.get("model_type")
    if kind not in LAYOUTS:
        raise ValueError(f"config: model_type: {kind!r}, one of {', '.join(LAYOUTS)} expected")
    try:
        return LAYOUTS[kind](config)
    except KeyError as error:
        raise ValueError(f"config: {error.args[0]}: absent") from error
