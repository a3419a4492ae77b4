from __future__ import annotations

import pytest

from videochat_tools.retrievers.query import analyse, content_words, without_anchor, without_moment


@pytest.mark.parametrize(
    ("question", "picture"),
    [
        ("what colour is the ring that spins?", "the ring spins"),
        ("in which direction does the small red circle move?", "the small red circle moves"),
        ("which way does the red circle go?", "the red circle goes"),
        ("how many objects are there when the red circle bumps into the blue square?",
         "the red circle bumps into the blue square"),
        ("which object bumps into the blue square?", "an object bumps into the blue square"),
        ("does the red circle pass in front of the blue square?", "the red circle passes in front of the blue square"),
        ("is the ring plain, striped or dotted?", "the ring"),
        ("show me the moment when the dog jumps", "the dog jumps"),
        ("is there a red circle in the video?", "a red circle"),
        ("a man talks to a woman", "a man talks to a woman"),
        ("When does the man talk to the woman?", "the man talks to the woman"),
    ],
)  # fmt: skip
def test_a_question_becomes_the_description_of_what_it_is_about(question: str, picture: str) -> None:
    query = analyse(question)
    assert query.visual == picture
    assert not query.asks_speech
    assert query.speech == content_words(picture)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("what is said about the harbour?", ("harbour",)),
        ("What does the speaker say about the old bridge?", ("old", "bridge")),
        ("when is the harbour mentioned?", ("harbour",)),
        ("who talks about the weather in this video?", ("weather",)),
        ("find where she mentions the bridge", ("bridge",)),
        ("What did he say about his fellow Americans?", ("fellow", "americans")),
    ],
)
def test_a_question_about_words_looks_for_the_words_only(question: str, words: tuple[str, ...]) -> None:
    query = analyse(question)
    assert query.asks_speech
    assert query.speech == words
    assert query.visual == ""


@pytest.mark.parametrize("joint", ["when", "while"])
def test_what_is_said_at_a_moment_looks_for_the_moment(joint: str) -> None:
    query = analyse(f"what is said {joint} the red circle spins?")
    assert query.asks_speech
    assert query.visual == "the red circle spins"
    assert query.speech == ()


def test_topic_and_moment_are_told_apart() -> None:
    query = analyse("what does he say about the harbour when the red circle spins?")
    assert (query.visual, query.speech) == ("the red circle spins", ("harbour",))


@pytest.mark.parametrize(
    ("question", "relation", "anchor", "picture", "left"),
    [
        ("What happens after the red circle leaves?", "after", "the red circle leaves", "",
         "what happens in the video?"),
        ("what is shown just before the dog jumps?", "before", "the dog jumps", "", "what happens in the video?"),
        ("After the dog jumps, what does the man do?", "after", "the dog jumps", "the man", "what does the man do?"),
        ("which ring appears right after the star spins in the video?", "after", "the star spins", "ring appears",
         "which ring appears?"),
        ("and after the storm?", "after", "the storm", "", "what happens in the video?"),
        ("what follows the goal?", "after", "the goal", "", "what happens in the video?"),
        ("how many objects are there after the ring spins?", "after", "the ring spins", "",
         "how many objects are there?"),
    ],
)  # fmt: skip
def test_what_comes_after_or_before_something(
    question: str, relation: str, anchor: str, picture: str, left: str
) -> None:
    query = analyse(question)
    assert query.anchor is not None
    assert (query.relation, query.anchor.visual, query.visual) == (relation, anchor, picture)
    assert query.described == f"{picture} {anchor}".strip()
    assert without_anchor(question.removesuffix(" in the video?")) == left


def test_an_anchor_may_be_something_said_and_so_may_what_follows() -> None:
    query = analyse("what is said after they mention the harbour?")
    assert query.anchor is not None
    assert (query.anchor.visual, query.anchor.speech) == ("", ("harbour",))
    assert (query.visual, query.speech, query.asks_speech) == ("", (), True)


@pytest.mark.parametrize(
    "question",
    ["what happens after that?", "what happens after 00:42?", "does the ring spin before the star?",
     "what is he after?", "before the storm", "the ring spins after the star moves",
     "which way does the ring go after it bumps into the star?"],
)  # fmt: skip
def test_what_names_nothing_to_move_from_is_no_anchor(question: str) -> None:
    assert analyse(question).anchor is None


@pytest.mark.parametrize(
    "odd", ["", "?", "   ", '"', "who?", "AND", "NEAR(", "*", "what happens first?", "ünïcode 日本"]
)
def test_odd_input_is_taken_as_it_is(odd: str) -> None:
    query = analyse(odd)
    assert query.text == odd
    assert odd.strip(" ?") in query.visual


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ("what is said when the green star spins?", "what is said?"),
        ("what do they say while the ring grows?", "what do they say?"),
        ("how many objects are there when the red circle bumps into the square?", "how many objects are there?"),
        ("what is said about the harbour?", "what is said about the harbour?"),
        ("what happens when the ring spins?", "what happens when the ring spins?"),
    ],
)
def test_the_moment_is_taken_off_where_it_only_says_when(question: str, left: str) -> None:
    assert without_moment(question) == left
