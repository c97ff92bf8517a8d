"""Records what transformers makes of strings, ids and conversations.

Builds small tokenizers of the published layouts, deterministically, and writes them with the recorded
results beside this file. Run with the Python of scripts/setup: `python tests/goldens/tokenizers/generate.py`.

  folders/NAME/       tokenizer files as a checkpoint would have them
  cases.json.gz       the strings, and per variant (a folder plus replaced files) a hash of the ids of
                      each BLOCK strings: 32-bit FNV-1a over, for each string, the number of ids and the ids
                      as little-endian uint32 (for decoded text: over the UTF-8 bytes and a NUL)
  chat.json           conversations and the prompts that apply_chat_template renders
"""

import collections
import gzip
import itertools
import json
import pathlib
import random
import shutil
import struct
import tempfile

import tokenizers
import transformers
from chat import CHATS
from strings import CHINESE, FULL_WIDTH, STEMS, strings
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors

HERE = pathlib.Path(__file__).parent
FOLDERS = HERE / "folders"
STRINGS = 10_400
BRIEF = 2_000  # strings for decoding, and for variants that share their pipeline with a main one
FULL = 150  # strings with the ids themselves, for a readable failure
DECODED = 120  # sequences of random ids
BLOCK = 10
CORPUS = strings(3000, seed=1)


def write(folder, name, content):
    path = FOLDERS / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (
        content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=0)
    )
    path.write_text(text, encoding="utf-8", newline="")


def learn_merges(words, count):
    """Byte-pair encoding of `words` (tuples of symbols). Our own: the trainers of tokenizers break ties
    by the order of a hash table, and these folders shall be the same every time."""
    words = [[list(word), n] for word, n in collections.Counter(words).items()]
    pairs, places = collections.Counter(), collections.defaultdict(set)

    def tally(i, sign):
        symbols, n = words[i]
        for pair in itertools.pairwise(symbols):
            pairs[pair] += sign * n
            places[pair].add(i)

    for i in range(len(words)):
        tally(i, 1)
    merges = []
    while len(merges) < count:
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for i in places.pop(best):
            tally(i, -1)
            symbols = words[i][0]
            at = 0
            while at + 1 < len(symbols):
                if (symbols[at], symbols[at + 1]) == best:
                    symbols[at : at + 2] = ["".join(best)]
                at += 1
            tally(i, 1)
        del pairs[best]
    return merges


def split_words(pre_tokenizer, normalizer=None):
    normalize = normalizer.normalize_str if normalizer else str
    return [word for text in CORPUS for word, _ in pre_tokenizer.pre_tokenize_str(normalize(text))]


def byte_level_files(folder, suffix, special, missing):
    """vocab.json and merges.txt: the bytes but `missing`, the merges' products, the special tokens."""
    alphabet = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if c != missing]
    vocab = dict.fromkeys(alphabet + ([c + suffix for c in alphabet] if suffix else []))
    merges = []
    words = split_words(pre_tokenizers.ByteLevel(add_prefix_space=False))
    for left, right in learn_merges([(*word[:-1], word[-1] + suffix) for word in words], 1100):
        if left in vocab and right in vocab:
            merges.append((left, right))
            vocab[left + right] = None
    vocab = {token: i for i, token in enumerate([*vocab, *special])}
    write(folder, "vocab.json", vocab)
    write(folder, "merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


def bert_folder():
    latin = [chr(c) for c in range(0x21, 0x7F)] + list("éüßçñøåабвгдежαβγδε가나다あいうアイウ€·×÷")
    pieces = sorted({stem[:n] for stem in STEMS for n in range(2, len(stem) + 1)})
    tails = sorted({stem[n:] for stem in STEMS for n in range(1, len(stem))})
    chinese = CHINESE[::2] + list(FULL_WIDTH[:-1]) + ["龘", "𠮷", "豈", "⼀"]
    tokens = ["[PAD]", *(f"[unused{i}]" for i in range(1, 20)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [*latin, *chinese, *pieces, *(f"##{c}" for c in latin), *(f"##{t}" for t in tails)]
    tokens += [f"##{c}" for c in chinese[:200]]
    # A repeated line moves its token to the later id.
    write("bert", "vocab.txt", "\n".join([*dict.fromkeys(tokens), chinese[5]]) + "\n")
    config = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "do_basic_tokenize": True,
        "tokenize_chinese_chars": True, "strip_accents": None, "never_split": None,
        "model_max_length": 512, "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
        "unk_token": "[UNK]", "mask_token": "[MASK]",
    }  # fmt: skip
    write("bert", "tokenizer_config.json", config)


def added(content, **rules):
    token = {
        "content": content,
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }
    return {**token, **rules}


def clip_folder():
    byte_level_files("clip", "</w>", ["<|startoftext|>", "<|endoftext|>"], missing="ÿ")
    names = {"bos_token": added("<|startoftext|>"), "eos_token": added("<|endoftext|>")}
    write(
        "clip",
        "special_tokens_map.json",
        {**names, "unk_token": added("<|endoftext|>"), "pad_token": "<|endoftext|>"},
    )
    typed = {name: {"__type": "AddedToken", **token} for name, token in names.items()}
    config = {
        "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, "model_max_length": 77, "errors": "replace",
        "add_prefix_space": False, **typed, "pad_token": "<|endoftext|>",
        "unk_token": {"__type": "AddedToken", **added("<|endoftext|>")},
    }  # fmt: skip
    write("clip", "tokenizer_config.json", config)


def gpt2_folder():
    byte_level_files("gpt2", "", ["<|endoftext|>"], missing="÷")
    write(
        "gpt2",
        "tokenizer_config.json",
        {"tokenizer_class": "GPT2Tokenizer", "model_max_length": 1024},
    )


MODERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def modern_folder():
    """tokenizer.json as current byte-level language models have it."""
    split = pre_tokenizers.Split(Regex(MODERN), behavior="isolated", invert=False)
    steps = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    merges = learn_merges(map(tuple, split_words(steps, normalizers.NFC())), 1000)
    vocab = dict.fromkeys(
        [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    )
    tokenizer = Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(vocab)}, merges=merges)
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = steps
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(
        [AddedToken("<tool>", lstrip=True, rstrip=True), AddedToken("水墨", single_word=True)]
    )
    write("modern", "tokenizer.json", tokenizer.to_str())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "add_bos_token": True,
        "model_max_length": 32768, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    write("modern", "tokenizer_config.json", config)


def fallback_folder():
    """tokenizer.json as SentencePiece models convert to: no pre-tokenizer, byte tokens, "▁" for spaces."""
    words = split_words(pre_tokenizers.Metaspace())
    common = collections.Counter(character for word in words for character in word)
    alphabet = sorted(common, key=lambda character: (-common[character], character))[:900]
    known = [tuple(word) for word in words if set(word) <= set(alphabet)]
    merges = learn_merges(known, 300)
    special = ["<unk>", "<s>", "</s>"]
    tokens = [
        *special,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *alphabet,
        *(a + b for a, b in merges),
    ]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    described = json.loads(tokenizer.to_str())
    described["truncation"] = {
        "direction": "Right",
        "max_length": 5,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    write("fallback", "tokenizer.json", json.dumps(described, ensure_ascii=False))
    config = {
        "tokenizer_class": "LlamaTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    write("fallback", "tokenizer_config.json", config)


def variants():
    """Name: folder, class in transformers, files replaced (None removes), strings used, padded length."""
    bert, clip, gpt2 = "BertTokenizer", "CLIPTokenizer", "GPT2Tokenizer"
    fast = "PreTrainedTokenizerFast"
    bare = {"tokenizer_config.json": None, "special_tokens_map.json": None}
    words = {f"{c}画": 2000 - i for i, c in enumerate("山水花鸟")}
    size = len(json.loads((FOLDERS / "clip/vocab.json").read_text()))
    more = {word: size + i for i, word in enumerate(sorted(words, key=words.get))} | {
        "<|style|>": size + 4
    }
    cased = {"tokenizer_class": bert, "do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": True,
             "pad_token": "[PAD]", "additional_special_tokens": ["[水墨]", "<tool>"], "truncation_side": "left",
             "clean_up_tokenization_spaces": True}  # fmt: skip
    framed = {"tokenizer_class": gpt2, "add_prefix_space": True, "add_bos_token": True, "pad_token": "<|pad|>",
              "padding_side": "left"}  # fmt: skip
    decoder = {
        "1400": added("<|endoftext|>", special=True, normalized=False),
        "1401": added("水墨", special=False),
    }
    listed = {"tokenizer_class": gpt2, "added_tokens_decoder": decoder, "eos_token": "<|endoftext|>",
              "mask_token": "[MASK]", "split_special_tokens": False}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        getattr(transformers, gpt2).from_pretrained(FOLDERS / "gpt2").save_pretrained(folder)
        saved = (pathlib.Path(folder) / "tokenizer.json").read_text(encoding="utf-8")
    return {
        "bert": ("bert", bert, {}, STRINGS, 48),
        "clip": ("clip", clip, {}, STRINGS, 77),
        "gpt2": ("gpt2", gpt2, {}, STRINGS, 0),
        "modern": ("modern", fast, {}, STRINGS, 0),
        "fallback": ("fallback", fast, {}, STRINGS, 0),
        "bert_bare": ("bert", bert, bare, BRIEF, 32),
        "bert_cased": ("bert", bert, {"tokenizer_config.json": json.dumps(cased)}, BRIEF, 24),
        "clip_bare": ("clip", clip, bare, BRIEF, 77),
        "clip_added": ("clip", clip, {"added_tokens.json": json.dumps(more, ensure_ascii=False)}, BRIEF, 16),
        "gpt2_bare": ("gpt2", gpt2, bare, BRIEF, 0),
        "gpt2_framed": ("gpt2", gpt2, {"tokenizer_config.json": json.dumps(framed)}, BRIEF, 20),
        "gpt2_listed": ("gpt2", gpt2, {"tokenizer_config.json": json.dumps(listed)}, BRIEF, 0),
        "gpt2_json": ("gpt2", gpt2, {"tokenizer.json": saved, "vocab.json": None, "merges.txt": None}, BRIEF, 0),
        "split_special": ("gpt2", gpt2, {"tokenizer_config.json": json.dumps({**listed, "split_special_tokens": True})},
                          BRIEF, 0),
    }  # fmt: skip


def fnv(content):
    value = 0x811C9DC5
    for byte in content:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def hash_blocks(rows):
    """`rows` of ids, or of texts; one hash for each BLOCK of them."""
    packed = [
        row.encode() + b"\0"
        if isinstance(row, str)
        else struct.pack(f"<{len(row) + 1}I", len(row), *row)
        for row in rows
    ]
    return [fnv(b"".join(packed[i : i + BLOCK])) for i in range(0, len(packed), BLOCK)]


def record(name, variant, texts):
    folder, class_name, replaced, count, padded = variant
    with tempfile.TemporaryDirectory() as place:
        for path in (FOLDERS / folder).iterdir():
            if path.name not in replaced:
                shutil.copy(path, place)
        for file_name, content in replaced.items():
            if content is not None:
                (pathlib.Path(place) / file_name).write_text(content, encoding="utf-8")
        tokenizer = getattr(transformers, class_name).from_pretrained(place)
    ids = tokenizer(texts[:count])["input_ids"]
    plain = tokenizer(texts[:BRIEF], add_special_tokens=False)["input_ids"]
    draw = random.Random(name)
    sequences = [draw.choices(range(len(tokenizer)), k=draw.randint(1, 20)) for _ in range(DECODED)]
    result = {
        "folder": folder, "replaced": replaced, "class": class_name, "vocab_size": len(tokenizer),
        "special": [getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")],
        "ids": ids[:FULL], "hashes": hash_blocks(ids), "plain": hash_blocks(plain),
        "round_trip": hash_blocks([tokenizer.decode(row, skip_special_tokens=True) for row in ids[:BRIEF]]),
        # Random ids: mostly broken UTF-8. Special tokens kept, and skipped.
        "sequences": sequences,
        "decoded": [[tokenizer.decode(s, skip_special_tokens=skip) for skip in (False, True)] for s in sequences],
    }  # fmt: skip
    if padded:
        rows = tokenizer(texts[:count], padding="max_length", truncation=True, max_length=padded)[
            "input_ids"
        ]
        result |= {"padded_length": padded, "padded": hash_blocks(rows)}
    return result


def chats():
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(FOLDERS / "modern")
    recorded = []
    for name, template, messages, generation in CHATS:
        case = {
            "name": name,
            "template": template,
            "messages": messages,
            "add_generation_prompt": generation,
        }
        try:
            case["prompt"] = tokenizer.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=generation, tokenize=False
            )
        except Exception as error:  # a template that refuses is a case, too
            case["error"] = str(error)
        recorded.append(case)
    return {"special_tokens": tokenizer.special_tokens_map, "cases": recorded}


def main():
    shutil.rmtree(FOLDERS, ignore_errors=True)
    for build in (bert_folder, clip_folder, gpt2_folder, modern_folder, fallback_folder):
        build()
    texts = strings(STRINGS, seed=2)
    goldens = {
        "versions": {
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "block": BLOCK,
        "strings": texts,
        "variants": {name: record(name, variant, texts) for name, variant in variants().items()},
    }
    content = json.dumps(goldens, ensure_ascii=False, separators=(",", ":")).encode()
    (HERE / "cases.json.gz").write_bytes(gzip.compress(content, 9, mtime=0))
    (HERE / "chat.json").write_text(
        json.dumps(chats(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
