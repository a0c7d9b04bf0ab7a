"""Rich captions: written strictly, read leniently, compared by what a person would say."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.tokens.rich_caption import BadRichCaption, RichCaption, compare, parse

TEXT = """Keywords: brass, percussion
Layout: brass first, then percussion.
Description: brass = lively melody, trumpet and trombone; percussion = steady beat, two."""
BRASS = RichCaption(
    ("brass", "percussion"),
    "brass first, then percussion",
    (("brass", ("lively melody", "trumpet and trombone")), ("percussion", ("steady beat", "two"))),
)

words = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789é'", min_size=1, max_size=8), min_size=1, max_size=3)
phrases = words.map(" ".join).filter(lambda text: text not in ("none", "keywords", "keyword", "layout", "description"))


@st.composite
def rich_captions(draw):
    keywords = draw(st.lists(phrases, min_size=1, max_size=5, unique=True))
    layout = draw(phrases)
    if len(keywords) == 1 and draw(st.booleans()):
        layout = ""
    described = [event for event in keywords if draw(st.booleans())]
    return RichCaption(
        tuple(keywords),
        "" if [layout] == keywords else layout,
        tuple((event, tuple(draw(st.lists(phrases, min_size=1, max_size=4)))) for event in described),
    )


@given(rich_captions())
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_back(caption):
    assert parse(caption.write()) == caption


@given(rich_captions(), st.randoms(use_true_random=False), st.sampled_from(["\n", "\n\n", "\r\n"]))
@settings(max_examples=200, deadline=None)
def test_order_of_parts_case_bullets_and_markdown_do_not_matter(caption, random, newline):
    lines = caption.write().split("\n")
    random.shuffle(lines)
    dressed = []
    for line in lines:
        heading, text = line.split(": ", 1)
        heading = random.choice([heading.upper(), heading.lower(), f"**{heading}**", f"- {heading}", f"## {heading}"])
        dressed.append(f"{heading}: {text.upper() if random.random() < 0.5 else '  ' + text}")
    if "é" not in "".join(lines):
        assert parse(newline.join(dressed)) == caption


@given(rich_captions())
@settings(max_examples=100, deadline=None)
def test_nothing_differs_from_itself(caption):
    difference = compare(caption, caption)
    assert not difference and difference.sentence() == "It is as planned."


@given(rich_captions(), rich_captions())
@settings(max_examples=100, deadline=None)
def test_differences_turn_round(plan, heard):
    there, back = compare(plan, heard), compare(heard, plan)
    assert set(there.missing) == set(back.extra) and set(there.extra) == set(back.missing)
    assert {(e, b, a) for e, a, b in there.counts} == set(back.counts)
    assert bool(there) == bool(back)


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_refused(text):
    try:
        assert parse(parse(text).write()) == parse(text)
    except BadRichCaption:
        pass


def test_it_reads_like_this():
    assert parse(TEXT) == BRASS and BRASS.write() == TEXT
    listed = """**Description**
    - Brass: lively melody, trumpet and trombone
    - Percussion: steady beat, two
    **KEYWORDS**: Brass; Percussion.
    Layout: Brass first, then percussion"""
    with pytest.raises(BadRichCaption, match="Description"):
        parse(listed)
    assert parse(listed.replace("**Description**", "**Description**:")) == BRASS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Keywords: is missing"),
        ("Keywords: a\nLayout: a.", "Description: is missing"),
        ("Keywords:\nLayout: a.\nDescription: none.", "Keywords is empty"),
        ("Keywords:\nLayout: a.\nDescription: a = two.", "Keywords is empty"),
        ("Keywords: a, b\nLayout:\nDescription: none.", "Layout is empty"),
        ("Keywords: a\nKeywords: b\nLayout: a.\nDescription: none.", "Keywords stands twice"),
        ("Keywords: a\nLayout: a.\nDescription: b = loud.", "'b', which is not among"),
        ("Keywords: a\nLayout: a.\nDescription: loud and long.", "expected EVENT = ATTRIBUTES"),
        ("Keywords: a\nLayout: a.\nDescription: a = loud; a = soft.", "'a' twice"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(BadRichCaption, match=message):
        parse(text)


@pytest.mark.parametrize(
    "fields",
    [
        (("a", "a"), "a, then a"),
        (("a,b",), ""),
        (("A",), ""),
        (("a",), "two\nlines"),
        (("a", "b"), "a, then b", (("b", ("x",)), ("a", ("x",)))),
        (("a",), "", (("a", ()),)),
    ],
)
def test_only_what_can_be_read_back_can_be_made(fields):
    with pytest.raises(BadRichCaption):
        RichCaption(*fields)


def caption(*events: tuple[str, str]) -> RichCaption:
    told = tuple((event, tuple(attributes.split(", "))) for event, attributes in events)
    return RichCaption(tuple(event for event, _ in events), ", then ".join(event for event, _ in events), told)


def test_differences_are_said_as_a_person_would():
    plan = caption(("brass", "one, lively"), ("percussion", "two, steady"), ("choir", "one"))
    heard = caption(("percussion", "three, steady"), ("brass", "one, sad"), ("bird", "one"))
    difference = compare(plan, heard)
    assert difference.order == (("brass", "percussion"),)
    assert difference.counts == (("percussion", 2, 3),)
    assert difference.attributes == (("brass", ("lively",), ("sad",)),)
    assert difference.sentence() == (
        "The choir is missing; the bird was not asked for; the brass should come before the percussion; "
        "the percussion should sound twice, not three times; the brass should be lively, not sad."
    )
    missing = compare(plan, caption(("brass", "one, lively")))
    assert missing.sentence() == "The percussion and the choir are missing."
