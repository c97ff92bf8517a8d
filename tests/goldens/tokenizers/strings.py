"""Strings that tokenizers disagree about, drawn from a seeded generator."""

import random
import unicodedata

# The 3755 characters of GB 2312 level 1, the everyday ones.
CHINESE = [
    bytes((high, low)).decode("gb2312")
    for high in range(0xB0, 0xD8)
    for low in range(0xA1, 0xFF)
    if not (high == 0xD7 and low > 0xF9)
]
FULL_WIDTH = "，。！？、；：“”‘’（）《》【】…—·～￥％＋－＝＜＞＠＃＆＊／＼｜　"
STEMS = (
    "mountain river moon autumn wind paint ink brush bamboo crane lotus snow temple light shadow "
    "distant boat fisher scholar poem wine spring night rain dragon phoenix garden stone water "
    "beautiful highly detailed render watercolor landscape portrait style of the and with in a"
).split()
SUFFIXES = ["", "", "", "s", "ed", "ing", "ly", "ness", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
ACCENTED = (
    "café naïve Ångström façade señor Übergröße Łódź Dvořák İstanbul ıslak ﬁne ﬂow Tiếng Việt được "
    "Ελληνικά Σίσυφος ΟΔΥΣΣΕΥΣ привет МОСКВА ёлка العربية עברית हिन्दी ภาษาไทย 한국어 한국 日本語 "
    "カタカナ ｶﾀｶﾅ ひらがな Ⅷ ½ ² ³ ①② ﷺ ǅ ß ẞ ſ K Å Ω"
).split()
EMOJI = ("😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇳 🇺🇸 1️⃣ ❤️ ❤ 🧑🏿‍🚀 🐉 🖌️ 🏔 🌕 ☕︎ 👨🏻‍🦰 🫱🏼‍🫲🏾 🩷 🫨 🇨 ‍ ️").split(
    " "
)
CONTROLS = (
    [chr(c) for c in range(0x20)]
    + [chr(c) for c in range(0x7F, 0xA1)]
    + list(
        "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u2028\u2029\u202e\u205f\u2060\u3000\ufeff\ufffc\ufffd\ufffe\uffff"
    )
    + ["\ue000", "\U000f0000", "\U0010ffff", "\u0378", "\U0001e900", "\U00016d40", "\U0001cc00"]
)
SPACES = [
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\v",
    "\f",
    "\x85",
    "\xa0",
    "\u2003",
    "\u2028",
    "\u3000",
]
SPECIAL = (
    "[CLS] [SEP] [PAD] [UNK] [MASK] <|endoftext|> <|startoftext|> <|im_start|> <|im_end|> <s> </s> <unk> "
    "[cls] <|ENDOFTEXT|> [MASK]] [[MASK] <|endoftext <tool> </w> ##山 <0xE4> ▁ Ġ 水墨 [水墨]"
).split()
DIGITS = [
    "0",
    "1",
    "42",
    "2024",
    "3.14",
    "1,000,000",
    "１２３",
    "٣٤",
    "१२",
    "𝟙𝟚",
    "0x7f",
    "10^9",
    "50%",
]
CODE = (
    "https://example.org/a?b=c&d=%E5%B1%B1#x user@example.org {'k': [1, 2]} a_b-c.d/e\\f x += y; "
    "fooBarBaz SCREAMING_CASE v1.5-pruned (masterpiece:1.3) [day|night] <lora:ink:0.8> ... --- !!! ?!"
).split(" ")


def chinese(draw, low=1, high=10):
    return "".join(draw.choices(CHINESE, k=draw.randint(low, high)))


def english(draw):
    words = [draw.choice(STEMS) + draw.choice(SUFFIXES) for _ in range(draw.randint(1, 6))]
    cased = [draw.choice((str, str, str.upper, str.title))(word) for word in words]
    return draw.choice((" ", " ", ", ")).join(cased)


def clauses(draw):
    return "".join(chinese(draw, 1, 5) + draw.choice(FULL_WIDTH) for _ in range(draw.randint(1, 3)))


def code_points(draw):
    planes = ((0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x32000))
    return "".join(chr(draw.randrange(*draw.choice(planes))) for _ in range(draw.randint(1, 6)))


def broken(draw):
    """What a client makes of broken UTF-8 when it replaces the broken bytes."""
    text = bytearray(clauses(draw).encode())
    for _ in range(draw.randint(1, 4)):
        text[draw.randrange(len(text))] = draw.randrange(256)
    return text.decode(errors="replace")


def long_word(draw):
    letters = draw.choice(("ab", "山水", "é", "x", "aA1", "—", "ก", "😀"))
    return draw.choice(letters) * 3 + "".join(
        draw.choices(letters, k=draw.choice((30, 99, 100, 101, 300)))
    )


def mixture(draw):
    parts = []
    for _ in range(draw.randint(2, 5)):
        kind = draw.choice((chinese, english, clauses, code_points, None, None, None, None))
        if kind:
            parts.append(kind(draw))
        else:
            pool = draw.choice(
                (FULL_WIDTH, ACCENTED, EMOJI, CONTROLS, SPACES, SPECIAL, DIGITS, CODE)
            )
            parts.append(draw.choice(pool))
    return draw.choice(("", " ", "")).join(parts)


def spaced(draw):
    words = [
        draw.choice((chinese(draw, 1, 4), draw.choice(STEMS), draw.choice(SPECIAL)))
        for _ in range(3)
    ]
    return "".join("".join(draw.choices(SPACES, k=draw.randint(0, 4))) + word for word in words)


def accents(draw):
    form = draw.choice(("NFC", "NFD", "NFKC", "NFKD"))
    return unicodedata.normalize(form, " ".join(draw.choices(ACCENTED, k=draw.randint(1, 5))))


KINDS = (chinese, english, clauses, code_points, broken, mixture, mixture, spaced, accents)


def strings(count, seed):
    """`count` different strings: every single oddity first, then random ones."""
    draw = random.Random(seed)
    single = [*FULL_WIDTH, *ACCENTED, *EMOJI, *CONTROLS, *SPACES, *SPECIAL, *DIGITS, *CODE]
    seen = dict.fromkeys(["", *single, *(f"a{c}b" for c in single), *(f"山{c} 水" for c in single)])
    for _ in range(40):
        seen[long_word(draw)] = None
    while len(seen) < count:
        seen[draw.choice(KINDS)(draw)] = None
    return list(seen)[:count]
