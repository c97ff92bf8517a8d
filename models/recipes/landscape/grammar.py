"""What a landscape may show and how Chinese prompts ask for it.

A `Scene` is one full assignment of attributes. `FORBIDDEN` combinations (a red sun at night, a plum
in bloom in summer) are neither painted nor asked for. The hold-out is by attribute combination: a
tenth of the allowed (sky, mountains, colour, tree, season) tuples never reaches any training, whatever
the remaining attributes are. Wording is held out as well: the phrases in `*_HELD` lists and the
`held_wording` sentence frames are used only for evaluation, but all their characters are trained.
"""

import dataclasses
import itertools
import random

SKY = ("none", "sun", "moon")
MOUNTAINS = (1, 2, 3)
COLOUR = ("blue", "ink", "gold")
TREE = ("none", "pine", "willow", "plum")
SEASON = ("none", "spring", "summer", "autumn", "winter")
TIME = ("none", "dawn", "dusk", "night")
SIDE = ("left", "right")


@dataclasses.dataclass(frozen=True)
class Scene:
    """One picture's attributes; `side` is where the tree stands, the pavilion stands opposite."""

    sky: str
    mountains: int
    colour: str
    tree: str
    season: str
    time: str
    boat: bool
    birds: bool
    pavilion: bool
    side: str

    def core(self):
        return (self.sky, self.mountains, self.colour, self.tree, self.season)

    @property
    def pavilion_side(self):
        return SIDE[1 - SIDE.index(self.side)]

    def mirrored(self):
        return dataclasses.replace(self, side=self.pavilion_side)


def allowed(scene):
    """False for combinations that contradict each other or that one picture cannot show clearly."""
    if scene.sky == "sun" and scene.time == "night":
        return False
    if scene.sky == "moon" and scene.time in ("dawn", "dusk"):
        return False
    if scene.tree == "plum" and scene.season in ("summer", "autumn"):
        return False
    return not (scene.tree == "willow" and scene.season == "winter")


def all_scenes():
    flags = (False, True)
    product = itertools.product(
        SKY, MOUNTAINS, COLOUR, TREE, SEASON, TIME, flags, flags, flags, SIDE
    )
    return [s for s in (Scene(*v) for v in product) if allowed(s)]


def _held_cores():
    cores = sorted({s.core() for s in all_scenes()}, key=str)
    random.Random(20).shuffle(cores)
    return frozenset(cores[: round(len(cores) * 0.1)])


HELD_CORES = _held_cores()


def held_out(scene):
    return scene.core() in HELD_CORES


NUMBER = {1: "一", 2: "两", 3: "三"}
MOUNTAIN = {"blue": ("青山", "青峰"), "ink": ("墨山", "墨峰"), "gold": ("金山", "金峰")}
MOUNTAIN_FRAMES = ("{n}座{m}", "{n}座{m}", "{m}{n}座", "远处有{n}座{m}", "{n}重{m}", "水边{n}座{m}")
MOUNTAIN_FRAMES_HELD = ("{m}{n}重", "有{n}座{m}", "远处{m}{n}座", "岸边有{n}座{m}")

PHRASES = {
    ("sky", "sun"): ("红日", "一轮红日", "红日当空", "红日高照", "天上有红日"),
    ("sky", "moon"): ("明月", "一轮明月", "明月当空", "圆月", "天上有圆月"),
    ("tree", "pine"): ("松树", "一株苍松", "古松", "岸边有松", "苍松"),
    ("tree", "willow"): ("柳树", "一株垂柳", "杨柳", "岸边有柳", "垂柳"),
    ("tree", "plum"): ("梅树", "一株红梅", "梅花", "岸边有梅", "红梅"),
    ("season", "spring"): ("春天", "春景", "春色", "早春", "桃花开"),
    ("season", "summer"): ("夏天", "夏景", "夏色", "盛夏", "荷花开"),
    ("season", "autumn"): ("秋天", "秋景", "秋色", "深秋", "红叶"),
    ("season", "winter"): ("冬天", "冬景", "寒冬", "雪景", "白雪"),
    ("time", "dawn"): ("清晨", "早晨", "晨雾", "晨光", "黎明"),
    ("time", "dusk"): ("傍晚", "黄昏", "暮色", "晚霞", "暮光"),
    ("time", "night"): ("夜晚", "夜色", "夜里", "深夜", "夜景"),
    ("boat", True): ("小舟", "一叶扁舟", "孤舟", "江上有船", "渔舟"),
    ("birds", True): ("飞鸟", "几只飞鸟", "归鸟", "鸟群飞过", "群鸟"),
    ("pavilion", True): ("亭子", "小亭", "凉亭", "岸边有亭", "水边有小亭"),
}
PHRASES_HELD = {
    ("sky", "sun"): ("当空一轮红日", "红日一轮", "天上一轮红日"),
    ("sky", "moon"): ("当空一轮明月", "圆月当空", "天上有明月"),
    ("tree", "pine"): ("岸边一株古松", "水边有松树", "一株松树"),
    ("tree", "willow"): ("岸边一株垂柳", "水边有杨柳", "一株柳树"),
    ("tree", "plum"): ("岸边一株红梅", "水边有梅花", "一株梅树"),
    ("season", "spring"): ("春天桃花开", "早春景色", "桃花春色"),
    ("season", "summer"): ("夏天荷花开", "盛夏景色", "荷花夏色"),
    ("season", "autumn"): ("秋天红叶", "深秋景色", "红叶秋色"),
    ("season", "winter"): ("冬天雪景", "寒冬白雪", "冬天白雪"),
    ("time", "dawn"): ("清晨雾色", "清晨晨光", "黎明晨雾"),
    ("time", "dusk"): ("傍晚晚霞", "黄昏暮色", "黄昏晚霞"),
    ("time", "night"): ("夜晚景色", "深夜夜色", "夜里景色"),
    ("boat", True): ("江上孤舟", "水上有小船", "江上一叶小舟"),
    ("birds", True): ("群鸟飞过", "几只归鸟", "天上飞鸟"),
    ("pavilion", True): ("岸边小亭", "水边凉亭", "水边有亭子"),
}
NOUN = {
    "pine": ("松树", "苍松", "古松", "松"),
    "willow": ("柳树", "垂柳", "杨柳", "柳"),
    "plum": ("梅树", "红梅", "梅花", "梅"),
    "pavilion": ("亭子", "小亭", "凉亭", "亭"),
}
SIDE_WORD = {"left": "左", "right": "右"}
SIDE_FRAMES = ("{s}边有{o}", "{s}岸有{o}", "{o}在{s}边", "{s}侧有{o}", "{o}在{s}")
SIDE_FRAMES_HELD = ("{o}在{s}侧", "{s}侧岸边有{o}", "{o}在{s}岸")
PREFIXES = ("", "", "水墨山水画，", "国画，", "一幅画：", "山水：")
PREFIXES_HELD = ("一幅水墨画，", "一幅国画：", "国画山水，")
JOINERS = ("，", "，", "、", ",", " ")


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt and which of the attributes that it may leave open it names."""

    prompt: str
    tree_side_asked: bool
    pavilion_side_asked: bool
    mountains_asked: bool = True
    colour_asked: bool = True


def _object(rng, kind, side, held_wording):
    """A phrase for the tree or the pavilion, half of the time with `side` if given: (text, side asked)."""
    phrases = PHRASES_HELD if held_wording else PHRASES
    if side is None or rng.random() < 0.5:
        key = ("pavilion", True) if kind == "pavilion" else ("tree", kind)
        return rng.choice(phrases[key]), False
    frame = rng.choice(SIDE_FRAMES_HELD if held_wording else SIDE_FRAMES)
    return frame.format(s=SIDE_WORD[side], o=rng.choice(NOUN[kind])), True


def describe(scene, rng, held_wording=False, terse=False):
    """A prompt for `scene`. `terse` (training only) now and then leaves the mountains to the model."""
    phrases = PHRASES_HELD if held_wording else PHRASES
    frame = rng.choice(MOUNTAIN_FRAMES_HELD if held_wording else MOUNTAIN_FRAMES)
    mountain = frame.format(n=NUMBER[scene.mountains], m=rng.choice(MOUNTAIN[scene.colour]))
    count_asked = colour_asked = True
    if terse and rng.random() < 0.08:
        count_asked, colour_asked = rng.choice([(False, False), (False, True), (True, False)])
        hue = rng.choice(MOUNTAIN[scene.colour]) if colour_asked else ""
        mountain = NUMBER[scene.mountains] + "座山" if count_asked else hue
    parts = [mountain] if mountain else []
    for field in ("sky", "season", "time", "boat", "birds"):
        value = getattr(scene, field)
        if value not in ("none", False):
            parts.append(rng.choice(phrases[field, value]))
    tree_side = pavilion_side = False
    if scene.tree != "none":
        text, tree_side = _object(rng, scene.tree, scene.side, held_wording)
        parts.append(text)
    if scene.pavilion:
        # beside a tree the pavilion's side is not named: it stands opposite anyway
        side = scene.pavilion_side if scene.tree == "none" else None
        text, pavilion_side = _object(rng, "pavilion", side, held_wording)
        parts.append(text)
    rng.shuffle(parts)
    prefix = rng.choice(PREFIXES_HELD if held_wording else PREFIXES)
    prompt = prefix + rng.choice(JOINERS).join(parts) + rng.choice(["", "", "。"])
    return Request(prompt, tree_side, pavilion_side, count_asked, colour_asked)


def asked_attributes(scene, request):
    """The attribute dictionary of models/heldout.jsonl; what the prompt leaves open is absent."""
    asked = {"sky": scene.sky}
    if request.mountains_asked:
        asked["mountains"] = scene.mountains
    if request.colour_asked:
        asked["colour"] = scene.colour
    asked |= {
        "tree": scene.tree,
        "season": scene.season,
        "time": scene.time,
        "boat": scene.boat,
        "birds": scene.birds,
        "pavilion": scene.pavilion,
    }
    if request.tree_side_asked:
        asked["tree_side"] = scene.side
    if request.pavilion_side_asked:
        asked["pavilion_side"] = scene.pavilion_side
    return asked


def characters():
    """Every character that any prompt of this grammar can contain, sorted."""
    found = set("，、。：,山座")
    for table in (PHRASES, PHRASES_HELD, NOUN, MOUNTAIN):
        for phrases in table.values():
            found.update(*phrases)
    for frames in (MOUNTAIN_FRAMES, MOUNTAIN_FRAMES_HELD, SIDE_FRAMES, SIDE_FRAMES_HELD):
        found.update(*frames)
    found.update(*PREFIXES, *PREFIXES_HELD, *NUMBER.values(), *SIDE_WORD.values())
    return sorted(found - set("{}nmso "))


def trained_characters(samples=4000):
    """Characters that training prompts really contain (drawn, not derived)."""
    rng = random.Random(1)
    scenes = [s for s in all_scenes() if not held_out(s)]
    seen = set()
    for _ in range(samples):
        seen.update(describe(rng.choice(scenes), rng, terse=True).prompt)
    return seen


def vocabulary():
    """vocab.txt of the tokenizer: BERT's special tokens, then one token a character."""
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters()
