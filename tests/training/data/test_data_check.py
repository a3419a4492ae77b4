"""``videochat data check``: every bad entry of every kind by its number, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rendering import truncate

from videochat_tools.training.data.records import find_faults, unknown_keys

Data = Callable[..., tuple[int, str, str]]
Write = Callable[[Path, Sequence[Any]], Path]

TURN = {"q": "What?", "a": "That."}

GOOD: list[dict[str, Any]] = [
    {"video": "0.mp4", "QA": [TURN, {"i": "Answer.", **TURN}]},
    {"video": "0.mp4", "QA": [{"q": "", "a": "A caption."}], "start": 0, "end": 1.5},
    {"video": "0.mp4", "QA": [TURN], "start": "0.5", "end": "1.5"},
    {"video": "0.mp4", "QA": [TURN], "start": None, "end": None},
    {"image": "0.png", "caption": "A picture."},
    {"QA": [TURN]},
]

BAD: list[tuple[Any, str]] = [
    ([1], "must be an object, got [1]"),
    ({}, "has neither 'QA' nor 'caption'"),
    ({"video": "0.mp4"}, "has neither 'QA' nor 'caption'"),
    ({"video": 7, "QA": [TURN]}, "'video' must be a path, got 7"),
    ({"image": " ", "caption": "x"}, "'image' must be a path, got ' '"),
    ({"video": "0.mp4", "image": "0.png", "QA": [TURN]}, "shows both a video and an image"),
    ({"caption": "x"}, "'caption' needs a 'video' or an 'image'"),
    ({"image": "0.png", "caption": ["x"]}, "'caption' must be a text, got ['x']"),
    ({"image": "0.png", "caption": " "}, "'caption' is empty"),
    ({"QA": []}, "'QA' must be a list with at least one turn, got []"),
    ({"QA": TURN}, "'QA' must be a list with at least one turn"),
    ({"QA": [TURN, "x"]}, "turn 2 must be an object with 'q' and 'a', got 'x'"),
    ({"video": "0.mp4", "QA": [TURN, {"q": "x"}]}, "turn 2: 'a' is missing"),
    ({"video": "0.mp4", "QA": [{"a": "x"}]}, "turn 1: 'q' is missing"),
    ({"video": "0.mp4", "QA": [{"q": None, "a": "x"}]}, "turn 1: 'q' must be a text, got None"),
    ({"video": "0.mp4", "QA": [{**TURN, "i": 3}]}, "turn 1: 'i' must be a text, got 3"),
    ({"video": "0.mp4", "QA": [{"q": "x", "a": "\n"}]}, "turn 1: 'a' is empty"),
    ({"QA": [{"q": "", "a": "x"}]}, "turn 1: 'q' is empty, and nothing is shown"),
    ({"video": "0.mp4", "QA": [TURN], "start": 1}, "'start' stands alone"),
    ({"video": "0.mp4", "QA": [TURN], "start": 2, "end": 2}, "'start' must lie before 'end', got 2 and 2"),
    ({"video": "0.mp4", "QA": [TURN], "start": -1, "end": 2}, "'start' must not be negative, got -1"),
    ({"video": "0.mp4", "QA": [TURN], "start": 0, "end": "x"}, "'end' must be a number of seconds, got 'x'"),
    ({"video": "0.mp4", "QA": [TURN], "start": True, "end": 2}, "'start' must be a number of seconds, got True"),
    ({"image": "0.png", "QA": [TURN], "start": 0, "end": 1}, "'start' and 'end' belong to a video"),
    ({"QA": [TURN], "start": 0, "end": 1}, "belong to a video, and this shows text"),
]


def test_good_entries_have_no_faults() -> None:
    assert [find_faults(entry) for entry in GOOD] == [[]] * len(GOOD)
    assert find_faults(GOOD[0], "video") == []
    assert find_faults(GOOD[0], "image") == ["shows a video, but its corpus is of image; split the file"]
    assert find_faults(GOOD[5], "video") == ["shows text, but its corpus is of video; split the file"]


@pytest.mark.parametrize(("entry", "told"), BAD)
def test_every_kind_of_fault(entry: Any, told: str) -> None:
    faults = find_faults(entry)
    assert len(faults) == 1 and told in faults[0], faults


def test_an_entry_can_have_several_faults() -> None:
    entry = {"video": "", "QA": [{"q": 1, "a": ""}, {"q": "x"}], "start": 5, "end": 3}
    assert [fault.split(",")[0].split(":")[0] for fault in find_faults(entry)] == [
        "'video' must be a path", "turn 1", "turn 1", "turn 2", "'start' must lie before 'end'",
    ]  # fmt: skip


def test_keys_that_nobody_reads() -> None:
    entry = {"id": 7, "video": "a", "caption": "x", "QA": [{**TURN, "Q": "?"}, {**TURN, "Q": "?"}]}
    assert list(unknown_keys(entry)) == ["id", "caption beside QA", "QA.Q", "QA.Q"]
    assert list(unknown_keys([1])) == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_every_bad_entry_is_told_by_its_number(
    data: Data, tmp_path: Path, media: Path, write: Write, name: str
) -> None:
    entries = [value for pair in zip([entry for entry, _ in BAD], GOOD * 5, strict=False) for value in pair]
    file = write(tmp_path / name, entries)
    code, out, err = data("check", file)
    *lines, summary = out.splitlines()
    assert (code, err, len(lines)) == (1, "", len(BAD))
    text = file.read_text().splitlines()
    for number, line, (entry, told) in zip(range(1, 2 * len(BAD), 2), lines, BAD, strict=True):
        place, _, reason = line.partition(f": entry {number}: ")
        assert told in reason
        at = int(place.removeprefix(f"{file}:"))
        if name == "a.jsonl":
            assert (at, json.loads(text[at - 1])) == (number, entry)
        else:
            assert text[at - 1].strip()[:1] == json.dumps(entry)[0]
    assert summary.startswith(f"{file}: {len(entries)} entries, {len(BAD)} bad; ")
    assert "media not looked for (give --root)" in summary


def test_broken_lines_are_told_and_do_not_hide_the_rest(data: Data, tmp_path: Path) -> None:
    good, file = json.dumps(GOOD[5]), tmp_path / "a.jsonl"
    file.write_text(f'{good}\n{{"QA": [}}\n\n{good}\n{{"QA"\n{good}\n')
    code, out, _ = data("check", file)
    assert code == 1
    assert out.splitlines()[:-1] == [
        f"{file}:2: entry 2: no JSON: Expecting value at column 9",
        f"{file}:5: entry 4: no JSON: Expecting ':' delimiter at column 6",
    ]
    assert "5 entries, 2 bad; 0 video, 0 image, 3 text; 0 captions, 3 conversations of 3 turns" in out


def test_a_good_file_is_counted(data: Data, tmp_path: Path, media: Path, write: Write) -> None:
    (tmp_path / "root").mkdir()
    for kind in ("videos/0.mp4", "images/0.png"):
        (tmp_path / "root" / Path(kind).name).symlink_to(media / kind)
    file = write(tmp_path / "a.json", [*GOOD, {**GOOD[0], "id": 3, "source": "x"}, {**GOOD[0], "id": 4}])
    code, out, err = data("check", file, "--root", tmp_path / "root")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == (
        f"{file}: 8 entries, 0 bad; 6 video, 1 image, 1 text; 1 captions, 7 conversations of 10 turns; 0 missing"
    )
    assert sorted(line.split("warning: ")[1] for line in out.splitlines()[:-1]) == [
        "entry 7: nobody reads 'id' (2 entries have it)",
        "entry 7: nobody reads 'source' (1 entries have it)",
    ]
    code, out, _ = data("check", file, "--root", tmp_path / "root", "--json")
    (told,) = json.loads(out)
    assert code == 0
    assert (told["file"], told["entries"], told["bad"], told["video"], told["turns"]) == (str(file), 8, 0, 6, 10)
    assert told["faults"] == [] and told["media_checked"] is True
    assert {"key": "id", "count": 2, "entry": 7, "line": told["warnings"][0]["line"]} in told["warnings"]


def test_missing_media(data: Data, tmp_path: Path, write: Write) -> None:
    file = write(tmp_path / "a.jsonl", GOOD)
    code, out, _ = data("check", file, "--root", tmp_path, "--json")
    (told,) = json.loads(out)
    assert (code, told["bad"], told["missing"]) == (1, 5, 5)
    assert told["faults"][4] == {"entry": 5, "line": 5, "reason": f"there is no {tmp_path / '0.png'}"}


def test_decoding_finds_what_only_the_media_tell(data: Data, tmp_path: Path, media: Path, write: Write) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "0.mp4").symlink_to(media / "videos" / "0.mp4")  # 2 seconds
    truncate(media / "videos" / "1.mp4", root / "cut.mp4", 0.3)
    (root / "bad.png").write_text("no picture")
    entries: list[Any] = [
        {"video": "0.mp4", "QA": [TURN]},
        {"video": "0.mp4", "QA": [TURN], "start": 0.5, "end": 2.9},  # rounded up: fine
        {"video": "0.mp4", "QA": [TURN], "start": 0.5, "end": 3.5},
        {"video": "0.mp4", "QA": [TURN], "start": 2.5, "end": 2.8},
        {"video": "cut.mp4", "QA": [TURN]},
        {"image": "bad.png", "caption": "x"},
        {"image": "0.png", "caption": "x"},
        {"QA": [TURN]},
        {"video": "cut.mp4", "QA": [{"q": "x"}]},  # bad anyway: not decoded
        {"video": "cut.mp4", "QA": [TURN]},
    ]
    code, out, _ = data("check", write(tmp_path / "a.jsonl", entries), "--root", root, "--decode", "--json")
    (told,) = json.loads(out)
    assert (code, told["bad"], told["decoded"], told["missing"]) == (1, 7, 7, 1)
    reasons = {fault["entry"]: fault["reason"] for fault in told["faults"]}
    assert sorted(reasons) == [3, 4, 5, 6, 7, 9, 10]
    assert reasons[3] == f"the part ends at 3.5 s, but {root / '0.mp4'} at 2.0 s"
    assert "begins after the last frame" in reasons[4]
    assert "cut.mp4" in reasons[5] == reasons[10]
    assert "no readable picture" in reasons[6]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes to make a file that never ends")
def test_decoding_survives_a_file_that_never_ends(data: Data, tmp_path: Path, media: Path, write: Write) -> None:
    os.mkfifo(tmp_path / "0.png")
    (tmp_path / "1.png").symlink_to(media / "images" / "1.png")
    entries = [{"image": f"{number}.png", "caption": "x"} for number in (0, 1, 0)]
    file = write(tmp_path / "a.jsonl", entries)
    code, out, _ = data("check", file, "--root", tmp_path, "--decode", "--workers", "1", "--time-limit", "1.5")
    assert code == 1
    assert out.count("kept the decoder busy for over 1.5 s") == 2
    assert "3 entries, 2 bad" in out and "3 decoded" in out


def test_a_list_of_corpora(data: Data, tmp_path: Path, media: Path, write: Write) -> None:
    write(tmp_path / "v.json", GOOD[:4])
    write(tmp_path / "t.jsonl", [GOOD[5], GOOD[4]])
    (tmp_path / "c.toml").write_text(
        f'[[corpora]]\nannotation = "v.json"\nroot = "{media / "videos"}"\nmedium = "video"\n'
        '[[corpora]]\nannotation = "t.jsonl"\nmedium = "text"\n'
    )
    code, out, _ = data("check", tmp_path / "c.toml")
    assert code == 1
    write(tmp_path / "c.json", [["v.json", str(media / "videos"), "video"], ["t.jsonl", "", "text"]])
    assert data("check", tmp_path / "c.json") == (code, out, "")
    first, second, third = out.splitlines()
    assert first.startswith(f"{tmp_path / 'v.json'}: 4 entries, 0 bad; 4 video")
    assert second == f"{tmp_path / 't.jsonl'}:2: entry 2: shows a image, but its corpus is of text; split the file"
    assert "2 entries, 1 bad" in third


def test_what_cannot_be_checked(data: Data, tmp_path: Path, write: Write) -> None:
    code, out, err = data("check", tmp_path / "none.json")
    assert (code, out) == (1, "")
    assert (
        err
        == f"videochat: error: {tmp_path / 'none.json'} cannot be read (No such file or directory); check the name\n"
    )
    file = write(tmp_path / "a.json", [])
    code, out, _ = data("check", file)
    assert code == 1 and out.rstrip().endswith("there is nothing in it")
    code, _, err = data("check", file, "--decode")
    assert code == 2 and "--root" in err
    (tmp_path / "object.json").write_text('{"QA": []}')
    code, out, _ = data("check", tmp_path / "object.json")
    assert code == 1 and "not a JSON list" in out
