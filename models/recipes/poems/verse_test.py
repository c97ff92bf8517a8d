"""Tests of the poem checks: what is verse, what is not, and why."""

import pytest

import verse

SPRING_DAWN = "春眠不觉晓，处处闻啼鸟。\n夜来风雨声，花落知多少。"
STORK_TOWER = "白日依山尽，黄河入海流。\n欲穷千里目，更上一层楼。"
BAIDI_TOWN = "朝辞白帝彩云间，千里江陵一日还。\n两岸猿声啼不住，轻舟已过万重山。"
SPRING_VIEW = (
    "国破山河在，城春草木深。\n感时花溅泪，恨别鸟惊心。\n"
    "烽火连三月，家书抵万金。\n白头搔更短，浑欲不胜簪。"
)


@pytest.fixture(name="book", scope="module")
def small_book() -> verse.RhymeBook:
    """The characters that the tests ask about, with their groups in the Pingshui lists."""
    return verse.RhymeBook(
        {
            "尤": ("平", "流楼"),
            "侵": ("平", "深心金簪"),
            "删": ("平", "间还山"),
            "篠": ("仄", "晓鸟少"),
            "level": ("平", "依山黄河穷千层"),
            "oblique": ("仄", "白日尽入海欲里目更上一"),
        }
    )


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (SPRING_DAWN, "五言绝句"),
        (BAIDI_TOWN, "七言绝句"),
        (SPRING_VIEW, "五言律诗"),
        ("\n".join([BAIDI_TOWN, BAIDI_TOWN]), "七言律诗"),
    ],
)
def test_names_the_form_of_well_formed_poems(text: str, form: str) -> None:
    assert verse.parse(text).form == form
    assert verse.parse(text).fault == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "couplet 1 is not"),
        (SPRING_DAWN + "\n", "couplet 3 is not"),
        (SPRING_DAWN.replace("，", ",", 1), "couplet 1 is not"),
        (SPRING_DAWN.replace("。", "，"), "couplet 1 is not"),
        (SPRING_DAWN.replace("花落知多少。", "花落知多少"), "couplet 2 is not"),
        (SPRING_DAWN.replace("花落", "fa"), "couplet 2 is not"),
        (SPRING_DAWN.replace("花落", "\ufffd落"), "couplet 2 is not"),
        (SPRING_DAWN.replace("夜来", "夜"), "different lengths [4, 5]"),
        (SPRING_DAWN.split("\n")[0], "2 lines of 5"),
        (f"{SPRING_DAWN}\n{SPRING_DAWN}\n{SPRING_DAWN}", "12 lines of 5"),
        ("关关雎鸠，在河之洲。\n窈窕淑女，君子好逑。", "4 lines of 4"),
        (f"{SPRING_DAWN}\n{BAIDI_TOWN}", "different lengths [5, 7]"),
        (f"春晓\n{SPRING_DAWN}", "couplet 1 is not"),
    ],
)
def test_names_the_fault_of_malformed_poems(text: str, fault: str) -> None:
    assert fault in verse.parse(text).fault
    assert verse.parse(text).form == ""


def test_rhyme_needs_one_group_for_all_even_lines(book: verse.RhymeBook) -> None:
    assert book.rhymes(verse.parse(STORK_TOWER).lines)
    assert book.rhymes(verse.parse(SPRING_VIEW).lines)
    assert not book.rhymes(verse.parse(STORK_TOWER.replace("楼。", "山。")).lines)
    assert not book.rhymes(verse.parse(SPRING_VIEW.replace("簪。", "楼。")).lines)


def test_repeating_the_rhyme_character_is_no_rhyme(book: verse.RhymeBook) -> None:
    assert not book.rhymes(verse.parse(STORK_TOWER.replace("楼。", "流。")).lines)


def test_tones_of_regulated_verse_hold_and_break(book: verse.RhymeBook) -> None:
    assert book.tone_share(verse.parse(STORK_TOWER).lines) == 1.0
    # Swapping the first couplet's halves breaks two of the ten rules, which join it to the next.
    swapped = STORK_TOWER.replace("白日依山尽，黄河入海流。", "黄河入海流，白日依山尽。")
    assert book.tone_share(verse.parse(swapped).lines) == pytest.approx(0.8)


def test_a_character_outside_the_book_fits_every_tone() -> None:
    empty = verse.RhymeBook({})
    assert empty.tone_share(verse.parse(SPRING_DAWN).lines) == 1.0
    assert not empty.rhymes(verse.parse(SPRING_DAWN).lines)
