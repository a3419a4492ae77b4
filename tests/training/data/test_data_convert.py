"""``videochat data convert``: LLaVA's and ShareGPT's conversations become ours, and nothing is lost without a word."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from videochat_tools.errors import TrainingDataError
from videochat_tools.training.data import ClipSampling, Corpus, Mixture
from videochat_tools.training.data.converting import convert_record

Data = Callable[..., tuple[int, str, str]]
Write = Callable[[Path, Sequence[Any]], Path]


def talk(*texts: str, roles: Sequence[str] = ("human", "gpt")) -> list[dict[str, str]]:
    return [{"from": roles[number % 2], "value": text} for number, text in enumerate(texts)]


CONVERTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "llava",
        {"id": "1", "image": "a.jpg", "conversations": talk("<image>\nWhat is it?", "A cat.", "Why?", "It purrs.")},
        {"image": "a.jpg", "QA": [{"q": "What is it?", "a": "A cat."}, {"q": "Why?", "a": "It purrs."}]},
    ),
    (
        "llava",
        {"image": "a.jpg", "conversations": talk("What is it?\n<image>", "A cat.")},
        {"image": "a.jpg", "QA": [{"q": "What is it?", "a": "A cat."}]},
    ),
    (
        "llava",
        {"video": "a.mp4", "conversations": talk("<video> What happens?", "A fall."), "start": 1.5, "end": 3},
        {"video": "a.mp4", "QA": [{"q": "What happens?", "a": "A fall."}], "start": 1.5, "end": 3},
    ),
    (  # LLaVA's own video data write <image>
        "llava",
        {"video": "a.mp4", "conversations": talk("<image>\nWhat happens?", "A fall.")},
        {"video": "a.mp4", "QA": [{"q": "What happens?", "a": "A fall."}]},
    ),
    (
        "llava",
        {"image": ["a.jpg"], "conversations": talk("<image>", "A cat.")},
        {"image": "a.jpg", "QA": [{"q": "", "a": "A cat."}]},
    ),
    ("llava", {"conversations": talk("What?", "That.")}, {"QA": [{"q": "What?", "a": "That."}]}),
    (
        "sharegpt",
        {"conversations": [{"from": "system", "value": "Be kind."}, *talk("1?", "1.", "2?", "2.")]},
        {"QA": [{"i": "Be kind.", "q": "1?", "a": "1."}, {"i": "Be kind.", "q": "2?", "a": "2."}]},
    ),
    (  # HTML is text where nothing is shown
        "sharegpt",
        {"conversations": talk("What is <image> in SVG?", "An element.", roles=("user", "assistant"))},
        {"QA": [{"q": "What is <image> in SVG?", "a": "An element."}]},
    ),
    (
        "sharegpt",
        {"messages": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1."}]},
        {"QA": [{"q": "1?", "a": "1."}]},
    ),
    (
        "sharegpt",
        {"videos": ["a.mp4"], "conversations": talk("<video>1?", "1.")},
        {"video": "a.mp4", "QA": [{"q": "1?", "a": "1."}]},
    ),
]

SKIPPED: list[tuple[str, Any, str]] = [
    ("llava", 7, "not an object but int"),
    ("llava", {"image": "a.jpg"}, "'conversations' must be a list of messages"),
    ("llava", {"conversations": []}, "'conversations' must be a list of messages"),
    ("llava", {"conversations": ["x"]}, "message 1 must be an object"),
    ("llava", {"conversations": talk("<image>\nWhat?", "That.")}, "has a tag <image> or <video>, but no 'image'"),
    ("llava", {"image": ["a", "b"], "conversations": talk("x", "y")}, "shows 2 images or videos"),
    ("llava", {"image": "a", "video": "b", "conversations": talk("x", "y")}, "shows 2 images or videos"),
    ("llava", {"image": "a", "conversations": talk("<image><image> x", "y")}, "shows its clip in 2 places"),
    ("llava", {"image": 3, "conversations": talk("x", "y")}, "'image' must be a path, got 3"),
    ("sharegpt", {"conversations": talk("x", "y", roles=("human", "tool"))}, "message 2 is from 'tool'; known are"),
    ("sharegpt", {"conversations": [{"from": "human", "value": None}]}, "message 1 must have a text in 'value'"),
    ("sharegpt", {"conversations": talk("x", "y", roles=("human", "human"))}, "two questions without an answer"),
    ("sharegpt", {"conversations": talk("w", "x", "y", roles=("gpt", "gpt"))}, "two answers without a question"),
    (
        "sharegpt",
        {"conversations": [*talk("x", "y"), {"from": "system", "value": "z"}]},
        "system message in the middle",
    ),
    ("sharegpt", {"conversations": talk("x")}, "has no answer"),
    ("sharegpt", {"conversations": talk("x", " ")}, "turn 1: 'a' is empty"),
    (
        "sharegpt",
        {"conversations": talk("x", "y", roles=("gpt", "human"))},
        "turn 1: 'q' is empty, and nothing is shown",
    ),
    ("llava", {"image": "a", "conversations": talk("x", "y"), "start": 1, "end": 2}, "belong to a video"),
]


@pytest.mark.parametrize(("form", "record", "expected"), CONVERTED)
def test_what_becomes_of_an_entry(form: Any, record: dict[str, Any], expected: dict[str, Any]) -> None:
    assert convert_record(record, form) == (expected, [])


@pytest.mark.parametrize(("form", "record", "told"), SKIPPED)
def test_what_cannot_be_written_in_our_format(form: Any, record: Any, told: str) -> None:
    with pytest.raises(TrainingDataError) as caught:
        convert_record(record, form)
    assert told in str(caught.value)


def test_what_is_changed_is_told() -> None:
    record, notes = convert_record({"conversations": talk("1?", "1.", "2?")}, "sharegpt")
    assert record == {"QA": [{"q": "1?", "a": "1."}]}
    assert notes == ["the last question has no answer and was left out"]
    late = {"image": "a.jpg", "conversations": talk("Hello.", "Hi.", "<image>\nWhat?", "A cat.")}
    record, notes = convert_record(late, "llava")
    assert record["QA"][1] == {"q": "What?", "a": "A cat."}
    assert notes == ["the clip stood in a later turn; it is now shown before the first"]


@pytest.mark.parametrize(("source", "target"), [("in.json", "out.jsonl"), ("in.jsonl", "out.json")])
def test_a_whole_file_can_be_trained_on(
    data: Data, tmp_path: Path, media: Path, write: Write, source: str, target: str
) -> None:
    records = [
        {"image": f"{number}.png", "conversations": talk("<image>\nWhat is it?", f"Number {number}, ü.")}
        for number in range(6)
    ]
    out_file = tmp_path / "made" / target
    code, out, err = data("convert", "--from", "llava", write(tmp_path / source, records), out_file)
    assert (code, out, err) == (0, f"written    {out_file} (6 of 6 entries, 0 skipped)\n", "")
    code, out, _ = data("check", out_file, "--root", media / "images")
    assert code == 0 and "6 entries, 0 bad; 0 video, 6 image, 0 text" in out
    mixture = Mixture([Corpus(out_file, media / "images")], ClipSampling(size=16), batch_size=3)
    samples = [sample for batch in mixture.epoch(0) for sample in batch.samples]
    assert {(s.path, s.turns[0].answer) for s in samples} == {  # type: ignore[union-attr]
        (f"{number}.png", f"Number {number}, ü.") for number in range(6)
    }
    assert [path.name for path in out_file.parent.iterdir()] == [target]


def test_every_entry_that_is_skipped_is_told(data: Data, tmp_path: Path) -> None:
    good = json.dumps({"conversations": talk("1?", "1.")})
    (tmp_path / "in.jsonl").write_text(
        f'{good}\n\n{{"conversations": [}}\n{json.dumps({"conversations": talk("x")})}\n{good}\n'
        + json.dumps({"conversations": talk("1?", "1.", "2?")})
    )
    code, out, err = data("convert", "--from", "sharegpt", tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert code == 1
    assert out == f"written    {tmp_path / 'out.jsonl'} (3 of 5 entries, 2 skipped)\n"
    assert err.splitlines() == [
        f"{tmp_path / 'in.jsonl'}:3: entry 2 skipped: no JSON: Expecting value at column 20",
        f"{tmp_path / 'in.jsonl'}:4: entry 3 skipped: has no answer",
        f"{tmp_path / 'in.jsonl'}:6: entry 5 changed: the last question has no answer and was left out",
    ]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3
    code, out, _ = data("convert", "--from", "sharegpt", tmp_path / "in.jsonl", tmp_path / "2.jsonl", "--json")
    told = json.loads(out)
    assert (code, told["entries"], told["written"], told["skipped"]) == (1, 5, 3, 2)
    assert told["notes"][1] == {"entry": 3, "line": 4, "reason": "has no answer", "skipped": True}


def test_nothing_is_overwritten_or_left_half_written(data: Data, tmp_path: Path, write: Write) -> None:
    source = write(tmp_path / "in.json", [{"conversations": talk("x")}, 3])
    before = source.read_bytes()
    for target, told in (
        (source, "is the file to be read"),
        (tmp_path / "out.json", "no entry of"),
        (tmp_path / "out.csv", "end in .json or .jsonl"),
    ):
        code, out, err = data("convert", "--from", "sharegpt", source, target)
        assert (code, out) == (1, "") and told in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.json"] and source.read_bytes() == before
    (tmp_path / "there.json").write_text("precious")
    code, _, err = data("convert", "--from", "sharegpt", source, tmp_path / "there.json")
    assert code == 1 and "is there already" in err
    assert (tmp_path / "there.json").read_text() == "precious"
    code, _, err = data("convert", "--from", "sharegpt", tmp_path / "none.json", tmp_path / "out.json")
    assert code == 1 and "none.json cannot be read" in err
