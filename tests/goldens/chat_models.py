"""Small Qwen3, ERNIE 4.5 and Llama folders with random weights, a tokenizer and a chat template, as
transformers saves them, and what it writes from them."""

import json

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
WORDS = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少 The moon rises over the river, 1234 stars.\n"
QUESTIONS = ["写一首关于秋山的五言绝句", "What is 12 + 30?", "江上，明月；孤舟。" * 40]


def save_tokenizer(folder, tokenizer_class):
    """Byte-level BPE with Qwen's pipeline, as tokenizer.json."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    pattern = transformers.models.qwen2.tokenization_qwen2.PRETOKENIZE_REGEX
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS, *QUESTIONS], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        **({"tokenizer_class": tokenizer_class} if tokenizer_class else {}),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def save_folder(folder, config_class, tokenizer_class=None, dtype=torch.float32, seed=5, **config):
    folder.mkdir(parents=True)
    vocabulary = save_tokenizer(folder, tokenizer_class)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(
        config_class(
            vocab_size=vocabulary,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=2048,
            initializer_range=0.15,
            bos_token_id=None,
            **config,
        ),
        dtype=torch.float32,
    )
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [2, 0], "pad_token_id": 0, "temperature": 0.6, "top_k": 20})
    )


CASES = {
    "qwen3": dict(
        config_class=transformers.Qwen3Config,
        num_key_value_heads=2,
        head_dim=20,
        tie_word_embeddings=True,
    ),
    "ernie": dict(
        config_class=transformers.Ernie4_5Config,
        tokenizer_class="PreTrainedTokenizerFast",
        num_key_value_heads=1,
        head_dim=12,
        pad_token_id=0,
        eos_token_id=2,
    ),
    "llama": dict(config_class=transformers.LlamaConfig, tokenizer_class="Qwen2Tokenizer"),
}


def theirs(folder, ids, tokens):
    """The greedy ids of transformers after `ids`, ends included."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = torch.tensor([ids])
    written = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens
    )
    return written[0, len(ids) :].tolist()


def chat_ids(folder, question, **switches):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=False,
        add_generation_prompt=True,
        **switches,
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]
