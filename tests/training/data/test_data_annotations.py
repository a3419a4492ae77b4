"""Annotation files of every shape: what stands in them is found, and what is broken is named by its place."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from videochat_tools.errors import TrainingDataError, UnsupportedContentError
from videochat_tools.training.data import AnnotationFile, Corpus, read_corpora
from videochat_tools.training.data import annotations as module

Write = Callable[[Path, Sequence[Any]], Path]

ENTRIES: list[dict[str, Any]] = [
    {"video": "a.mp4", "QA": [{"q": 'what "is" it? {]', "a": "a\\b \n ü 猫 🎬"}], "start": 12.5, "end": 130},
    {"image": "b.jpg", "caption": "x" * 300},
    {"QA": [{"i": "", "q": "1", "a": "2"}] * 3},
]


def as_list(path: Path, **options: Any) -> Path:
    path.write_text(json.dumps(ENTRIES, **options), encoding="utf-8")
    return path


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 1 << 20])
@pytest.mark.parametrize("options", [{"indent": 2, "ensure_ascii": False}, {"separators": (",", ":")}])
def test_a_list_is_read_in_pieces(
    tmp_path: Path, chunk: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    file = AnnotationFile(as_list(tmp_path / "a.json", **options))
    assert [file[number] for number in range(len(file))] == ENTRIES


def test_lines_may_be_blank_and_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    lines = "\n\n".join(json.dumps(entry, ensure_ascii=False) for entry in ENTRIES)
    (tmp_path / "a.jsonl").write_text(f"\ufeff{lines}\n  \n", encoding="utf-8")
    file = AnnotationFile(tmp_path / "a.jsonl")
    assert [file[number] for number in range(len(file))] == ENTRIES
    assert [(entry.number, entry.line) for entry in module.scan(file.path)] == [(1, 1), (2, 3), (3, 5)]
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(ENTRIES), encoding="utf-8")
    assert AnnotationFile(tmp_path / "a.json")[2] == ENTRIES[2]


def test_a_copy_in_another_process_reads_on(tmp_path: Path) -> None:
    file = AnnotationFile(as_list(tmp_path / "a.json"))
    assert file[1] == pickle.loads(pickle.dumps(file))[1] == ENTRIES[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "holds no entry"),
        ("", "entry 1 in line 1: not a JSON list"),
        ('{"video": "a.mp4"}', "not a JSON list"),
        ('[{"a": 1},\n{"a": }]', "entry 2 in line 2: no JSON: Expecting value in line 2"),
        ('[{"a": 1},\n{"a": 2}', "entry 3 in line 2: no JSON: the file ends without a ]"),
        ('[{"a": 1}\n{"a": 2}]', "entry 2 in line 2: no JSON: no comma"),
        ('[{"a": 1}] [', "something follows"),
    ],
)
def test_a_broken_list_is_refused_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(TrainingDataError, match="a.json") as caught:
        AnnotationFile(tmp_path / "a.json")
    assert told in str(caught.value)


@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_behind_a_broken_entry_the_next_one_is_found(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    (tmp_path / "a.json").write_text(
        '[{"video": "1", "QA": []},\n {"video": "2", "QA": [{"q": "a"}, {"q": "b", "a": nothing}]},\n'
        ' {"video": "3", "QA": []},\n {"video": "4" "QA": []},\n\n {"image": "5", "caption": "\\u00"}, {"QA": [6]}]'
    )
    found = [(entry.number, entry.line, entry.fault is None) for entry in module.scan(tmp_path / "a.json")]
    assert found == [(1, 1, True), (2, 2, False), (3, 3, True), (4, 4, False), (5, 6, False), (6, 6, True)]


def test_entries_that_are_not_objects_or_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"QA": 1}\n[2]\n{"QA": "\xe9"}\n{"QA": \n')
    file = AnnotationFile(tmp_path / "a.jsonl")
    assert file[0] == {"QA": 1}
    for number, told in ((1, "entry 2 is not a JSON object but list"), (2, "not in UTF-8"), (3, "Expecting value")):
        with pytest.raises(UnsupportedContentError, match=told):
            file[number]
    (tmp_path / "a.json").write_bytes(b'[{"QA": "\xe9"}, {"QA": "\xc3\xa9"}]')
    first, second = module.scan(tmp_path / "a.json")
    assert first.fault == "not in UTF-8; save the file in it"
    assert (second.fault, second.value) == (None, {"QA": "é"})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"none\.json cannot be read \(No such file"):
        AnnotationFile(tmp_path / "none.json")


# Lists of corpora


def test_the_released_form() -> None:
    corpus = Corpus.from_config(["anno/a.json", "data", "video", "img"], "/base")
    assert (corpus.annotation, corpus.root) == (Path("/base/anno/a.json"), Path("/base/data"))
    assert (corpus.medium, corpus.name) == ("video", "/base/anno/a.json")
    assert Corpus.from_config(["a.json", "/data"]).medium == "image"
    assert Corpus.from_config(["a.json", "", "text"]).medium == "text"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "c.toml",
            '[[corpora]]\nannotation = "a.json"\nroot = "v"\nmedium = "video"\nfolder_fps = 5\n'
            '[[corpora]]\nannotation = "/b.jsonl"\nmedium = "text"\nname = "b"\nshuffle_turns = false\n',
        ),
        (
            "c.yaml",
            "corpora:\n- {annotation: a.json, root: v, medium: video, folder_fps: 5}\n"
            "- {annotation: /b.jsonl, medium: text, name: b, shuffle_turns: false}\n",
        ),
        (
            "c.json",
            '[{"annotation": "a.json", "root": "v", "medium": "video", "folder_fps": 5},'
            ' {"annotation": "/b.jsonl", "medium": "text", "name": "b", "shuffle_turns": false}]',
        ),
    ],
)
def test_corpora_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_corpora(tmp_path / name) == [
        Corpus(tmp_path / "a.json", tmp_path / "v", "video", folder_fps=5),
        Corpus(Path("/b.jsonl"), tmp_path, "text", name="b", shuffle_turns=False),
    ]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.toml", "corpora = [", "c.toml is no TOML file"),
        ("c.yaml", "corpora: [", "c.yaml is no YAML file"),
        ("c.json", "[", "c.json is no JSON file"),
        ("c.json", "{}", "lists no corpora"),
        ("c.json", '[["a.json"]]', "released form is"),
        ("c.json", '[["a.json", "d", "audio"]]', "one of image, video, text, got 'audio'"),
        ("c.json", '[["a.json", "d", "text", "img"]]', "only a corpus of videos"),
        ("c.json", '[{"root": "d"}]', "annotation is needed"),
        ("c.json", '[{"annotation": "d", "fps": 3}]', "annotation is needed"),
        ("c.json", '[{"annotation": "d", "folder_fps": true}]', "'folder_fps' of a corpus cannot be True"),
        ("c.json", '[{"annotation": "d", "folder_fps": 0}]', "positive"),
        ("c.json", "[7]", "released form is"),
    ],
)
def test_corpora_that_are_none(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TrainingDataError) as caught:
        read_corpora(tmp_path / name)
    assert told in str(caught.value)
