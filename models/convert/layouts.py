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
    """A text encoder: transformers' BertModel or ErnieModel without its pooler."""
    if config.get("use_task_id") and config["model_type"] != "ernie":
        # A BertModel has no task embedding; without row 0 of it every hidden state is another.
        raise ValueError('config: use_task_id: only where model_type is "ernie" (ErnieModel)')
    width, inner = config["hidden_size"], config["intermediate_size"]
    found = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    if config.get("use_task_id"):
        tasks = (config.get("task_type_vocab_size", 3), width)
        found["embeddings.task_type_embeddings.weight"] = tasks
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


def _ernie4_5(config):
    """transformers' Ernie4_5ForCausalLM, dense."""
    width, inner, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim") or width // heads
    found = {"model.embed_tokens.weight": (words, width), "model.norm.weight": (width,)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, outputs, inputs in (
            ("self_attn.q_proj", heads * head, width),
            ("self_attn.k_proj", keys * head, width),
            ("self_attn.v_proj", keys * head, width),
            ("self_attn.o_proj", width, heads * head),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ):
            found[f"{at}.{name}.weight"] = (outputs, inputs)
            if config.get("use_bias"):
                found[f"{at}.{name}.bias"] = (outputs,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = (width,)
    if not config.get("tie_word_embeddings", True):
        found["lm_head.weight"] = (words, width)
    return found


def _vq_model(config):
    """diffusers' VQModel, as far as hanmo serves it: docs/ernie-vilg.md, "vqvae/config.json"."""
    channels, blocks = config["block_out_channels"], config.get("layers_per_block", 1)

    def attentive(key, plain, attends):
        names = config.get(key, [plain] * len(channels))
        for name in names:
            if name not in (plain, attends):
                raise ValueError(f"config: {key}: {name} is not served, only {plain}, {attends}")
        return [name == attends for name in names]

    down = attentive("down_block_types", "DownEncoderBlock2D", "AttnDownEncoderBlock2D")
    up = attentive("up_block_types", "UpDecoderBlock2D", "AttnUpDecoderBlock2D")
    latent, colours = config["latent_channels"], config.get("in_channels", 3)
    code = config.get("vq_embed_dim") or latent
    found = {"quantize.embedding.weight": (config["num_vq_embeddings"], code)}

    def convolution(name, inputs, outputs, size=3):
        found[f"{name}.weight"], found[f"{name}.bias"] = ((outputs, inputs, size, size), (outputs,))

    def norm(name, width):
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

    def resnet(name, inputs, outputs):
        norm(f"{name}.norm1", inputs)
        convolution(f"{name}.conv1", inputs, outputs)
        norm(f"{name}.norm2", outputs)
        convolution(f"{name}.conv2", outputs, outputs)
        if inputs != outputs:
            convolution(f"{name}.conv_shortcut", inputs, outputs, 1)

    def attention(name, width):
        norm(f"{name}.group_norm", width)
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            at = f"{name}.{part}"
            found[f"{at}.weight"], found[f"{at}.bias"] = (width, width), (width,)

    def middle(name, width):
        resnet(f"{name}.resnets.0", width, width)
        resnet(f"{name}.resnets.1", width, width)
        if config.get("mid_block_add_attention", True):
            attention(f"{name}.attentions.0", width)

    convolution("encoder.conv_in", colours, channels[0])
    for level, width in enumerate(channels):
        at = f"encoder.down_blocks.{level}"
        for block in range(blocks):
            resnet(f"{at}.resnets.{block}", width if block else channels[max(level - 1, 0)], width)
            if down[level]:
                attention(f"{at}.attentions.{block}", width)
        if level + 1 < len(channels):
            convolution(f"{at}.downsamplers.0.conv", width, width)
    middle("encoder.mid_block", channels[-1])
    norm("encoder.conv_norm_out", channels[-1])
    convolution("encoder.conv_out", channels[-1], latent)
    convolution("quant_conv", latent, code, 1)
    convolution("post_quant_conv", code, latent, 1)
    convolution("decoder.conv_in", latent, channels[-1])
    middle("decoder.mid_block", channels[-1])
    before = channels[-1]
    for level, width in enumerate(reversed(channels)):
        at = f"decoder.up_blocks.{level}"
        for block in range(blocks + 1):
            resnet(f"{at}.resnets.{block}", width if block else before, width)
            if up[level]:
                attention(f"{at}.attentions.{block}", width)
        if level + 1 < len(channels):
            convolution(f"{at}.upsamplers.0.conv", width, width)
        before = width
    norm("decoder.conv_norm_out", channels[0])
    convolution("decoder.conv_out", channels[0], colours)
    return found


LAYOUTS = {
    "ernie_vilg": _ernie_vilg,
    "bert": _bert,
    "ernie": _bert,
    "ernie4_5": _ernie4_5,
    "VQModel": _vq_model,
}
# Files may repeat a tied matrix: its name, and that of the one which it is.
TIED = {
    "ernie_vilg": ("lm_head.decoder.weight", "embeddings.word_embeddings.weight"),
    "ernie4_5": ("lm_head.weight", "model.embed_tokens.weight"),
}


def _kind(config):
    return config.get("model_type", config.get("_class_name"))


def expected_tensors(config):
    kind = _kind(config)
    if kind not in LAYOUTS:
        raise ValueError(f"config: model_type: {kind!r}, one of {', '.join(LAYOUTS)} expected")
    try:
        return LAYOUTS[kind](config)
    except KeyError as error:
        raise ValueError(f"config: {error.args[0]}: absent") from error


def tied_tensors(config):
    """The name that this layout leaves out because it is another tensor, and that tensor's; or None."""
    return TIED.get(_kind(config)) if config.get("tie_word_embeddings", True) else None
