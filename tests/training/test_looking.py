"""Where an answer finds what it copies."""

from __future__ import annotations

from random import Random

import pytest
import torch

from videochat_tools.context import clip_caption
from videochat_tools.training.batches import encode_conversations
from videochat_tools.training.conversations import Conversation, Piece, converse
from videochat_tools.training.lines import LineHeads
from videochat_tools.training.looking import Copy, look_losses
from videochat_tools.training.reading import Signs, read_lines
from videochat_tools.training.tokenizers import build_llm_tokenizer
from videochat_tools.training.world.language import VERBS
from videochat_tools.training.world.scene import sample_scene
from videochat_tools.types import TimeSpan


@pytest.fixture(scope="module")
def words():
    return build_llm_tokenizer()


def _looks(words, told: str, *rounds: tuple[str, str], seen=()) -> list[tuple[str, set[str]]]:
    """What is copied, and the tokens before, at and after each place where it may be looked for."""
    pieces = [Piece(told)]
    for question, answer in rounds:
        pieces += [Piece(f"###Human: {question}\n###Assistant:"), Piece(f" {answer}", True)]
    row = Conversation((*pieces, Piece("###")), ("any",) * len(rounds), seen)
    batch = encode_conversations(words, [row], 0)
    tokens = [token.strip("▁") for token in words.convert_ids_to_tokens(batch.input_ids[0].tolist())]
    readings = [read_lines(ids, Signs(words)) for ids in batch.input_ids.tolist()]
    copies = [copy for _, copy in LineHeads(32, words, 4).copied(batch, readings)]
    assert all(max(copy.sources) <= copy.place for copy in copies)
    return [
        (tokens[copy.place + 1], {" ".join(tokens[place - 1 : place + 2]) for place in copy.sources}) for copy in copies
    ]


_TRANSCRIPT = '###Human: [04:18–04:22] Iris: "seven boxes"\n[04:34–05:06] David: "twelve boxes"\n'


def test_quotations_are_looked_for_word_by_word_and_names_and_times_also_where_their_words_are(words) -> None:
    told = _looks(
        words,
        _TRANSCRIPT,
        ('what is said after "seven boxes"?', '"twelve boxes" [04:34–05:06]'),
        ('who says "seven boxes"?', "Iris [04:18–04:22]"),
    )
    its_words = {'" twelve boxes', 'twelve boxes "'}
    assert told[:2] == [("twelve", {'" twelve boxes'}), ("boxes", {'twelve boxes "'})]
    assert told[2:6] == [
        ("04", {"[ 04 :", *its_words}),
        ("34", {": 34 –", *its_words}),
        ("05", {"– 05 :", *its_words}),
        ("06", {": 06 ]", *its_words}),
    ]
    assert told[6] == ("Iris", {"] Iris :", '" seven boxes', 'seven boxes "'})
    assert told[7][0] == "04" and "[ 04 :" in told[7][1] and '" seven boxes' in told[7][1]
    assert len(told) == 11  # nothing for signs


def test_a_line_is_not_taken_for_a_part_of_another(words) -> None:
    told = _looks(
        words,
        '###Human: [04:18–04:22] Iris: "big boxes here"\n[04:34–04:36] David: "boxes"\n',
        ("what is said last?", '"boxes" [04:34–04:36]'),
    )
    assert told[0] == ("boxes", {'" boxes "'})


def test_a_letter_is_looked_for_where_its_option_is(words) -> None:
    options = "Options:\n(A) the red star\n(B) the blue star"
    told = _looks(words, "", (f"Question: what moves?\n{options}", "Best option:(B) the blue star [01:00–01:04]"))
    assert told[0] == ("B", {"( B )", ") the blue", "the blue star", "blue star <0x0A>"})
    assert [word for word, _ in told] == ["B", ")", "the", "blue", "star"]  # no time stands before


def test_arguments_of_tools_are_looked_for_in_what_is_asked(words) -> None:
    call = '{"name": "sunday", "arguments": {"seven": 78}}'
    told = _looks(words, "Tools:\nsunday(seven: integer)", ("sunday 78", call))
    assert [copy for copy in told if copy[0] in ("sunday", "seven", "78")] == [
        ("sunday", {"<0x0A> sunday ("}),
        ("seven", {"( seven :"}),
        ("78", {" 78 <0x0A>"}),
    ]


def test_times_are_looked_for_among_those_of_the_frames(words) -> None:
    clip = f"<Video></Video> {clip_caption(TimeSpan(1023.0, 1028.6), frames=8)}\n"
    told = _looks(words, f"###Human: {clip}", ("when?", "from 17:05.1 to 17:08.6"), seen=((3, 8),))
    assert told == [
        ("17", {" 17 :"}),
        ("05", {": 05 ."}),
        ("1", {". 1 "}),
        ("17", {" 17 :"}),
        ("08", {": 08 ."}),
        ("6", {". 6 <0x0A>"}),
    ]


def test_looking_at_the_right_place_costs_nothing_and_elsewhere_much(words) -> None:
    attention = torch.zeros(1, 3, 4, 4)
    attention[0, :, 3, 1], attention[0, 2, 3, 1] = 1.0, 0.0
    two, third, copy = slice(0, 2), slice(2, 3), (0, Copy(3, (1,)))
    (_, there, right), (name, away, wrong), (_, _, elsewhere) = look_losses(
        attention,
        [("there", two, [(0, Copy(3, (0, 1)))]), ("away", two, [(0, Copy(3, (2,)))]), ("third", third, [copy])],
    )
    assert float(there) == 0.0 and right == [1.0]
    assert name == "away" and float(away) > 10.0 and wrong == [0.0]
    assert elsewhere == [0.0]  # another head looks elsewhere
    ((_, half, _),) = look_losses((attention + attention.roll(1, dims=3)) / 2, [("half", two, [copy])])
    assert float(half) == pytest.approx(0.693, abs=1e-3)
    assert list(look_losses(attention, [("nothing", two, [])])) == []


def test_answers_look_at_what_they_are_about_until_they_cite(words) -> None:
    scene = next(scene for seed in range(99) if len((scene := sample_scene(Random(seed))).events) == 2)
    held = [{}, {("object", 0): 3, ("event", 0): 9, ("event", 1): 12}]
    pieces = [Piece("###Human: "), Piece("", clip=0), Piece("\n"), Piece("", clip=1), Piece("\n")]
    answers = (" the red star spins [17:03–17:08]", " Not found in the video.", " red")
    for answer in answers:
        pieces += [Piece("###Human: what happens last?\n###Assistant:"), Piece(answer, True)]
    sources = ((1, ("event", 1)), None, (1, ("object", 0)))
    row = Conversation((*pieces, Piece("###")), ("order", "absent", "colour"), (None,) * 3, sources)
    batch = encode_conversations(words, [row], 24, held)
    second = int(batch.visual_mask[0].nonzero()[24])  # where the second clip begins
    assert batch.shown == (second + 12, None, second + 3)
    told = LineHeads(32, words, 4).shown(batch)
    ids = batch.input_ids[0].tolist()
    looks = [(words.decode([ids[copy.place + 1]]).strip(), copy.sources[0] - second) for _, copy in told]
    assert [look for look in looks if look[0]] == [
        *((word, 12) for word in ("the", "red", "star", "spins")),
        ("red", 3),
        ("###", 3),
    ]
    assert encode_conversations(words, [row], 24).shown == (None,) * 3  # without rows that are known

    asked = [converse(Random(seed), [scene], [0]) for seed in range(40)]
    rounds = [
        (answer.text, source[1])
        for row in asked
        for answer, source in zip((p for p in row.pieces if p.is_answer), row.sources, strict=True)
        if source is not None
    ]
    assert {name for _, (name, _) in rounds} == {"object", "event"}
    for answer, (name, number) in rounds:  # "it spins" tells of the event that spins
        if name == "event" and answer.startswith(" it "):
            assert answer.startswith(f" it {VERBS[scene.events[number].kind][0][0]}")
