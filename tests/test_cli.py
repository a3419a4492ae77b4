"""The command line as a person at a shell meets it: output, errors, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from videochat_tools._version import __version__
from videochat_tools.cli import main
from videochat_tools.cli.commands import Difficulty
from videochat_tools.training.world.config import DIFFICULTIES

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "videochat_tools" / "models" / "nano"

with_nano = pytest.mark.skipif(not (NANO / "chat" / "config.json").is_file(), reason="no nano weights in this tree yet")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Videochat = Callable[..., Result]


@pytest.fixture
def videochat(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Videochat:
    """``videochat("add", "x.mp4")``, run in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIDEOCHAT_LIBRARY", raising=False)

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(exit_.value.code or 0), captured.out, captured.err)

    return run


def assert_one_error_line(result: Result, *expected: str) -> None:
    lines = result.err.strip().splitlines()
    errors = [line for line in lines if line.startswith("videochat: error: ")]
    assert len(errors) == 1, result.err
    assert "Traceback" not in result.err
    assert result.code == 1
    for text in expected:
        assert text in errors[0]


def shell(*arguments: str, cwd: Path, **options: object) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "videochat_tools", *arguments],
        cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ without a library


def test_version(videochat: Videochat) -> None:
    assert videochat("--version") == Result(0, f"videochat {__version__}\n", "")


def test_without_arguments_the_help_is_shown(videochat: Videochat) -> None:
    result = videochat()
    assert result.code == 2
    assert "Usage: videochat" in result.out + result.err


@pytest.mark.parametrize("command", ["add", "list", "search", "ask", "remove", "transcribe", "sample"])
def test_every_command_explains_itself(videochat: Videochat, command: str) -> None:
    overview, result = videochat("--help"), videochat(command, "--help")
    assert f"\n  {command} " in overview.out
    assert result.code == 0
    assert result.out.startswith(f"Usage: videochat {command}")
    assert max(map(len, result.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("serch", "x"), "search"),
        (("search",), "QUERY"),
        (("add",), "FILE"),
        (("search", "x", "-k", "0"), "-k"),
        (("search", "x", "--start", "soon"), "00:42"),
        (("search", "x", "--end", "nan"), "00:42"),
        (("sample", "x.mp4", "--minutes", "0"), "--minutes"),
    ],
)
def test_wrong_usage_is_explained(videochat: Videochat, arguments: tuple[str, ...], hint: str) -> None:
    result = videochat(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert hint in result.err


@pytest.mark.parametrize("command", [("list",), ("search", "x"), ("ask", "x"), ("remove", "x")])
def test_without_a_library_the_way_out_is_named(videochat: Videochat, command: tuple[str, ...], tmp_path: Path) -> None:
    result = videochat(*command, "--library", "nowhere")
    assert_one_error_line(result, "nowhere", "add")
    assert not (tmp_path / "nowhere").exists()


def test_sample_writes_three_files(videochat: Videochat, tmp_path: Path) -> None:
    result = videochat("sample", "demo.mp4", "--minutes", "0.2", "--seed", "3")
    assert result.code == 0
    assert result.out.split() == ["demo.mp4", "demo.vtt", "demo.timeline.json"]
    assert all((tmp_path / name).stat().st_size for name in result.out.split())
    assert json.loads((tmp_path / "demo.timeline.json").read_text())["questions"]


def test_sample_draws_the_world_that_is_asked_for(videochat: Videochat, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("base = 'easy'\ncolours = ['red', 'blue']\n")
    for options in (("--difficulty", "easy"), ("--world", "own.toml")):
        assert videochat("sample", "demo.mp4", "--minutes", "0.2", *options).code == 0
        timeline = json.loads((tmp_path / "demo.timeline.json").read_text())
        things = [thing for scene in timeline["scenes"] for thing in scene["things"]]
        assert {thing["texture"] for thing in things} == {"plain"}
    assert {thing["colour"] for thing in things} <= {"red", "blue"}
    (tmp_path / "own.toml").write_text("colours = ['red', 'pink']\n")
    assert_one_error_line(videochat("sample", "demo.mp4", "--world", "own.toml"), "own.toml", "pink", "purple")
    assert videochat("sample", "demo.mp4", "--world", "own.toml", "--difficulty", "hard").code == 2


def test_difficulties_are_those_of_the_world() -> None:
    assert [each.value for each in Difficulty] == list(DIFFICULTIES)


def test_sample_says_where_it_cannot_write(videochat: Videochat, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_error_line(videochat("sample", "file/demo.mp4", "--minutes", "0.1"), "demo.mp4")


def test_transcribe_reads_the_subtitles_beside_the_video(videochat: Videochat, color_video: Path) -> None:
    color_video.with_suffix(".srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nthe harbour opens at nine\n\n")
    assert videochat("transcribe", color_video).out == "[00:01–00:02] the harbour opens at nine\n"
    transcript = json.loads(videochat("transcribe", color_video, "--json").out)
    assert transcript["source"] == "subtitles"
    assert transcript["utterances"] == [{"start": 1.0, "end": 2.5, "text": "the harbour opens at nine"}]


def test_transcribe_a_missing_file(videochat: Videochat) -> None:
    assert_one_error_line(videochat("transcribe", "gone.mp4"), "gone.mp4")


# --------------------------------------------------------------------------------------------- with the real library


@pytest.fixture(scope="module")
def spoken_video(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    """Six seconds of three colours, with subtitles."""
    path = tmp_path_factory.mktemp("videos") / "talk.mp4"
    colors = ((220, 30, 30), (30, 200, 40), (40, 60, 220))
    write_video(path, (np.full((64, 96, 3), color, np.uint8) for color in colors for _ in range(20)), fps=10)
    path.with_suffix(".srt").write_text("1\n00:00:02,200 --> 00:00:03,800\nthe harbour opens at nine\n\n")
    return path


@pytest.fixture
def filled(videochat: Videochat, spoken_video: Path) -> Videochat:
    assert videochat("add", spoken_video).code == 0
    return videochat


@with_nano
def test_add_list_remove(videochat: Videochat, spoken_video: Path, tmp_path: Path) -> None:
    added = videochat("add", spoken_video)
    assert added.code == 0
    assert "talk.mp4" in added.out
    assert (tmp_path / "videochat-library").is_dir()
    assert "unchanged" in videochat("add", spoken_video).out
    (record,) = json.loads(videochat("list", "--json").out)
    assert record["video"] == "talk.mp4"
    assert record["duration"] == pytest.approx(6.0, abs=0.2)
    assert record["transcript"] == "subtitles"
    assert record["video_id"] in videochat("list").out
    assert videochat("remove", "talk.mp4").code == 0
    assert json.loads(videochat("list", "--json").out) == []
    assert spoken_video.is_file()


@with_nano
def test_search_as_text_and_as_json(filled: Videochat) -> None:
    assert "[00:0" in filled("search", "the harbour opens").out
    hits = json.loads(filled("search", "the harbour opens", "--json").out)
    assert hits[0]["video"] == "talk.mp4"
    assert "harbour" in hits[0]["text"]
    for hit in hits:
        assert 0 <= hit["start"] < hit["end"] <= 6.2
        assert 0 <= hit["score"] <= 1


@with_nano
def test_search_keeps_to_the_span_and_the_videos(filled: Videochat) -> None:
    hits = json.loads(filled("search", "the harbour opens", "--start", "00:04", "--json").out)
    assert all(hit["end"] > 4 for hit in hits)
    assert not any("harbour" in hit["text"] for hit in hits)
    assert filled("search", "harbour", "--video", "talk.mp4").code == 0
    assert_one_error_line(filled("search", "harbour", "--video", "other.mp4"), "other.mp4")
    assert filled("search", "harbour", "--start", "5", "--end", "2").code == 2


@with_nano
def test_ask_as_text_as_json_and_as_a_picture(filled: Videochat, tmp_path: Path) -> None:
    result = filled("ask", "what is said about the harbour?", "--json", "--picture", "out/answer.png")
    answer = json.loads(result.out)
    assert result.code == 0
    assert isinstance(answer["text"], str)
    assert isinstance(answer["found"], bool)
    assert bool(answer["evidence"]) == answer["found"]
    for evidence in answer["evidence"]:
        assert evidence["video"] == "talk.mp4"
        assert 0 <= evidence["start"] < evidence["end"] <= 6.2
    assert (tmp_path / "out" / "answer.png").read_bytes().startswith(b"\x89PNG")
    assert filled("ask", "what is said about the harbour?").out.startswith(answer["text"])


@with_nano
def test_results_are_on_stdout_and_all_else_on_stderr(videochat: Videochat, spoken_video: Path) -> None:
    assert json.loads(videochat("add", spoken_video, "--json").out)[0]["video"] == "talk.mp4"
    assert "Loading" not in videochat("ask", "how many objects are there?").err


@with_nano
def test_a_bad_file_does_not_keep_the_good_ones_out(videochat: Videochat, spoken_video: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("this is no video")
    assert_one_error_line(videochat("add", "notes.mp4", spoken_video), "notes.mp4")
    assert [record["video"] for record in json.loads(videochat("list", "--json").out)] == ["talk.mp4"]


@with_nano
def test_bad_files_leave_the_library_as_it_was(filled: Videochat, tmp_path: Path) -> None:
    before = filled("list", "--json").out
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("empty.mp4", "gone.mp4"):
        assert_one_error_line(filled("add", name), name)
    assert_one_error_line(filled("remove", "other.mp4"), "other.mp4")
    assert filled("list", "--json").out == before


@with_nano
def test_the_library_can_be_named_by_a_variable(
    videochat: Videochat, spoken_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDEOCHAT_LIBRARY", str(tmp_path / "my videos"))
    assert videochat("add", spoken_video).code == 0
    assert (tmp_path / "my videos").is_dir()
    assert not (tmp_path / "videochat-library").exists()


@with_nano
def test_a_model_that_does_not_exist_is_named(filled: Videochat) -> None:
    assert_one_error_line(filled("ask", "what?", "--model", "./no-such-model"), "no-such-model")


# -------------------------------------------------------------------------------------------- as a process of its own


def test_interrupting_ends_it_quietly(tmp_path: Path) -> None:
    # A shell starts what it runs in the background with interrupts ignored, and children inherit that: Python, too.
    as_in_front = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = shell("sample", "long.mp4", "--minutes", "120", cwd=tmp_path, preexec_fn=as_in_front)
    deadline = time.monotonic() + 120
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    process = shell("--help", cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()  # long before the command writes
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.wait(timeout=60)
    process.stderr.close()
