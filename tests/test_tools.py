"""The tools of a library: what they tell, how they fail, how much they tell at once."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests
from PIL import Image
from small_library import Scripted, make_small_library, open_small_library

from videochat_tools import VideoToolkit
from videochat_tools.embeddings import NANO_ENCODER
from videochat_tools.testing import COLORS, FakeClipWatcher
from videochat_tools.tools.base import MAX_CHARACTERS
from videochat_tools.tools.finding import PAGE
from videochat_tools.video_library import VideoLibrary

ALL = [
    "list_videos",
    "search_video",
    "ask_video",
    "watch_clip",
    "read_transcript",
    "get_frames",
    "add_video",
    "remove_video",
]


@pytest.fixture
def library(colours: Path, tmp_path: Path) -> VideoLibrary:
    shutil.copytree(colours / "lib", tmp_path / "lib")
    return open_small_library(tmp_path, watcher=FakeClipWatcher())


def tool(library: VideoLibrary, name: str, **options: Any) -> BaseTool:
    """One tool of the library, with everything allowed."""
    tools = VideoToolkit(library, allow_changes=True, **options).get_tools()
    return next(each for each in tools if each.name == name)


def use(library: VideoLibrary, name: str, toolkit: dict[str, Any] | None = None, **arguments: Any) -> ToolMessage:
    """What an agent gets back from one call."""
    called = tool(library, name, **(toolkit or {}))
    return called.invoke(ToolCall(name=name, args=arguments, id="1", type="tool_call"))


# ------------------------------------------------------------------------------------------------ the standard suites


@pytest.fixture(scope="module")
def looked_at_by_the_nano(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a library of the same films, made with the networks of the package."""
    if not (NANO_ENCODER / "model.safetensors").is_file():
        pytest.skip("the weights of the nano are not in this checkout")
    folder = tmp_path_factory.mktemp("nano") / "lib"
    with VideoLibrary(folder, transcriber=None) as library:
        assert len(library.add([colours / "colours.mp4", colours / "more.mp4"])) == 2
    return folder


class _Tool:
    """What the suites need to know about one tool."""

    name: str
    example: dict[str, Any]

    @pytest.fixture(autouse=True)
    def _library(self, looked_at_by_the_nano: Path, colours: Path, tmp_path: Path) -> None:
        shutil.copytree(looked_at_by_the_nano, tmp_path / "nano")
        self.library = VideoLibrary(tmp_path / "nano", transcriber=None)
        if self.name == "add_video":
            self.example = {"path": str(colours / "more.mp4")}

    @property
    def tool_constructor(self) -> BaseTool:
        return tool(self.library, self.name)

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return self.example


EXAMPLES: dict[str, dict[str, Any]] = {
    "list_videos": {},
    "search_video": {"query": "a green screen"},
    "ask_video": {"question": "what is seen while the screen is green?"},
    "watch_clip": {"video": "colours.mp4", "start": 2, "end": 4},
    "read_transcript": {"video": "colours.mp4"},
    "get_frames": {"video": "colours.mp4", "start": 2, "end": 4},
    "add_video": {},
    "remove_video": {"video": "more.mp4"},
}
for _name in ALL:  # two suites a tool: what a class body for each of the sixteen would say over and over
    _settings = {"name": _name, "example": EXAMPLES[_name]}
    for _suite in (ToolsUnitTests, ToolsIntegrationTests):
        _title = f"Test{_name.title().replace('_', '')}{_suite.__name__.removeprefix('Tools').removesuffix('Tests')}"
        globals()[_title] = type(_title, (_Tool, _suite), _settings)


# -------------------------------------------------------------------------------------------------------- the toolkit


def test_changing_the_library_must_be_allowed(library: VideoLibrary) -> None:
    assert [each.name for each in VideoToolkit(library).get_tools()] == ALL[:6]
    assert [each.name for each in VideoToolkit(library, allow_changes=True).get_tools()] == ALL
    assert "get_frames" not in [each.name for each in VideoToolkit(library, frames=False).get_tools()]


@pytest.mark.parametrize("name", ALL)
def test_a_model_is_told_what_every_argument_means(library: VideoLibrary, name: str) -> None:
    schema = tool(library, name).tool_call_schema.model_json_schema()
    assert all(each.get("description") for each in schema["properties"].values())
    assert "$ref" not in json.dumps(schema)  # many servers read no references
    assert len(tool(library, name).description) > 40


@pytest.mark.parametrize("name", ALL)
def test_artifacts_are_plain_json(library: VideoLibrary, colours: Path, name: str) -> None:
    model = Scripted(replies=["green [00:02]"], profile={"image_inputs": True})
    arguments = {"path": str(colours / "more.mp4")} if name == "add_video" else EXAMPLES[name]
    artifact = use(library, name, {"model": model}, **arguments).artifact
    assert json.loads(json.dumps(artifact)) == artifact


# ------------------------------------------------------------------------------------------------------ what they tell


def test_listing_names_every_video_with_its_length(library: VideoLibrary) -> None:
    told = use(library, "list_videos")
    for record in library.list():
        assert f"{record.name} (id {record.video_id}): 00:06 long" in told.content
    assert [video["video"] for video in told.artifact["videos"]] == ["colours.mp4", "more.mp4"]
    assert "more.mp4" not in use(library, "list_videos", contains="COLOUR").content
    assert "No video has 'zebra'" in use(library, "list_videos", contains="zebra").content


def test_a_long_list_is_read_page_by_page(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    library = open_small_library(tmp_path, watcher=FakeClipWatcher())
    (tmp_path / "many").mkdir()
    for number in range(PAGE + 2):
        shade = np.full((16, 16, 3), number * 5, np.uint8)
        write_video(tmp_path / "many" / f"{number:02d}.mp4", [shade] * 3, fps=10)
    library.add(tmp_path / "many")
    first = use(library, "list_videos")
    assert f"2 more: call list_videos with offset={PAGE}" in first.content
    rest = use(library, "list_videos", offset=PAGE)
    seen = [video["video"] for told in (first, rest) for video in told.artifact["videos"]]
    assert seen == [record.name for record in library.list()]
    assert "behind the last" in use(library, "list_videos", offset=1000).content


def test_searching_gives_the_moment_and_how_to_go_on(library: VideoLibrary) -> None:
    told = use(library, "search_video", query="a green screen", k=1)
    (hit,) = told.artifact["hits"]
    assert (hit["video"], hit["start"], hit["end"]) == (
        "colours.mp4",
        pytest.approx(2, abs=0.11),
        pytest.approx(4, abs=0.11),
    )
    assert "1. colours.mp4 [00:02–00:04] (2–4 s)" in told.content
    said = use(library, "search_video", query="the harbour", channel="speech")
    assert 'They say: "The harbour opens at nine."' in said.content
    limited = use(library, "search_video", query="a yellow screen", videos=["colours.mp4"], start="00:01", end=5)
    assert all(hit["video"] == "colours.mp4" and 1 <= hit["start"] <= 5 for hit in limited.artifact["hits"])
    assert "None of them is a sure match" in limited.content


def test_searching_moves_in_time(library: VideoLibrary) -> None:
    told = use(library, "search_video", query="what happens after the green screen?", k=1)
    (hit,) = told.artifact["hits"]
    assert hit["anchor"] == pytest.approx([2, 4], abs=0.11)
    assert "1. colours.mp4 [00:04–00:06] (4–6 s) after what is at [00:02–00:04] score" in told.content
    before = use(library, "search_video", query="what happens before the green screen?", k=1)
    assert "(0–2 s) before what is at [00:02–00:04]" in before.content


def test_asking_gives_a_checked_answer(library: VideoLibrary) -> None:
    model = Scripted(replies=["Green [00:02–00:04] and [03:00–03:05]."])
    told = use(library, "ask_video", {"model": model}, question="what is seen while the screen is green?")
    assert "Answer: Green [00:02–00:04] and." in told.content
    assert "- colours.mp4 [00:02–00:04]" in told.content
    assert told.artifact["answer"]["dropped"] == ["03:00–03:05"]
    nothing = use(library, "ask_video", {"model": model}, question="a purple screen")
    assert nothing.content.startswith("Not found in the video.") and "search_video" in nothing.content


def test_watching_shows_exactly_the_part(library: VideoLibrary) -> None:
    model = Scripted(replies=["blue"], profile={"image_inputs": True})
    told = use(library, "watch_clip", {"model": model}, video="colours", start=4.2, end=5.8, question="which colour?")
    assert told.content.startswith("Answer: blue")
    shown = [block for block in model.heard[0][-1].content if block["type"] == "image"]
    assert len(shown) == 4
    assert all(nearest_color(block) == "blue" for block in shown)
    assert "Question: which colour?" in model.heard[0][-1].text


def test_a_model_that_cannot_see_is_not_asked_to_watch(library: VideoLibrary) -> None:
    reader = Scripted(replies=[])
    assert tool(library, "ask_video", model=reader).model is reader
    assert tool(library, "watch_clip", model=reader).model is None  # the library's own


def test_reading_a_transcript(library: VideoLibrary) -> None:
    told = use(library, "read_transcript", video="colours.mp4")
    assert "[00:00–00:01] Good morning everybody." in told.content and "from subtitles" in told.content
    part = use(library, "read_transcript", video="colours.mp4", start=3)
    assert "harbour" in part.content and "Good morning" not in part.content
    assert "Nothing is said in more.mp4" in use(library, "read_transcript", video="more.mp4").content


def test_a_long_transcript_is_read_part_by_part(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    video = write_video(tmp_path / "talk.mp4", [np.full((16, 16, 3), 90, np.uint8)] * 60, fps=1)
    lines = [f"00:{i // 10:02d}.{i % 10}00 --> 00:{i // 10:02d}.{i % 10}90\nSentence number {i}." for i in range(600)]
    video.with_suffix(".vtt").write_text("WEBVTT\n\n" + "\n\n".join(lines))
    library = open_small_library(tmp_path, watcher=FakeClipWatcher())
    library.add(video)
    read: list[str] = []
    start = 0.0
    while True:
        told = use(library, "read_transcript", video="talk.mp4", start=start)
        assert len(told.content) < MAX_CHARACTERS + 400
        read += [each["text"] for each in told.artifact["utterances"]]
        if "to read on" not in told.content:
            break
        start = float(told.content.rpartition("start=")[2].split()[0])
    assert read == [f"Sentence number {i}." for i in range(600)]


def test_frames_are_pictures_of_the_part(library: VideoLibrary) -> None:
    told = use(library, "get_frames", video="colours.mp4", start=0, end=6, count=3)
    assert [block["type"] for block in told.content] == ["text", *["text", "image"] * 3]
    assert [nearest_color(block) for block in told.content if block["type"] == "image"] == ["red", "green", "blue"]
    assert [frame["time"] for frame in told.artifact["frames"]] == pytest.approx([1, 3, 5], abs=0.11)
    single = use(library, "get_frames", video="colours.mp4", start=2.5)
    assert [nearest_color(block) for block in single.content if block["type"] == "image"] == ["green"]


def nearest_color(block: dict[str, Any]) -> str:
    """The colour that fills a picture; its block is the standard one."""
    assert block["mime_type"] == "image/jpeg"
    with Image.open(io.BytesIO(base64.b64decode(block["base64"]))) as image:
        mean = np.asarray(image.convert("RGB")).mean(axis=(0, 1))
    return min(COLORS, key=lambda name: float(np.abs(mean - COLORS[name]).sum()))


def test_adding_and_removing(library: VideoLibrary, tmp_path: Path, color_video: Path) -> None:
    told = use(library, "add_video", path=str(color_video.rename(tmp_path / "new.mp4")))
    assert "- new.mp4: added, 00:06 long" in told.content
    assert "new.mp4" in [record.name for record in library.list()]
    assert "Removed new.mp4" in use(library, "remove_video", video="new.mp4").content
    assert "new.mp4" not in [record.name for record in library.list()]
    assert (tmp_path / "new.mp4").exists()


def test_only_videos_of_the_given_folder_may_be_added(library: VideoLibrary, tmp_path: Path, color_video: Path) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    (folder / "link.mp4").symlink_to(color_video)
    for path in (str(color_video), f"../{color_video.name}", "link.mp4", "*.mp4", color_video.as_uri()):
        told = use(library, "add_video", {"add_from": folder}, path=path)
        assert told.status == "error" and "only videos in that folder" in told.content, path
    shutil.copy(color_video, folder / "own.mp4")
    assert "own.mp4: added" in use(library, "add_video", {"add_from": folder}, path="own.mp4").content


# ------------------------------------------------------------------------------------------------------ how they fail


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("search_video", {"query": "  "}, "query: String should have at least 1 character"),
        ("search_video", {"query": "green", "k": 100_000}, "k: Input should be less than or equal to 20, given 100000"),
        ("search_video", {"query": "green", "k": 0}, "k: Input should be greater than or equal to 1"),
        ("search_video", {"query": "green", "videos": ["nothing.mp4"]}, "call list_videos"),
        ("search_video", {"query": "green", "videos": []}, "at least 1 item"),
        ("search_video", {"query": "green", "start": 60}, "the video is 6.0 s long"),
        ("search_video", {"query": "green", "fps": 3}, "there is no argument 'fps'"),
        ("search_video", {}, "the argument 'query' is missing"),
        ("ask_video", {"question": ""}, "question: String should have at least 1 character"),
        ("ask_video", {"question": "what?", "videos": ["colours.mp4", "other.mp4"]}, "no video 'other.mp4'"),
        ("watch_clip", {"video": "other.mp4", "start": 0, "end": 1}, "it holds colours.mp4"),
        ("watch_clip", {"video": "colours.mp4", "start": 10, "end": 12}, "give start and end within it"),
        ("watch_clip", {"video": "colours.mp4", "start": 4, "end": 2}, "lies before the start"),
        ("watch_clip", {"video": "colours.mp4", "start": 2, "end": 2}, "longer than 0 s"),
        ("watch_clip", {"video": "colours.mp4", "start": -1, "end": 2}, "greater than or equal to 0"),
        ("watch_clip", {"video": "colours.mp4", "start": "soon", "end": 2}, "valid number"),
        ("watch_clip", {"video": "colours.mp4", "start": "1:99:99", "end": 2}, "timecode"),
        ("watch_clip", {"video": "colours.mp4", "start": float("inf"), "end": 2}, "finite number"),
        ("read_transcript", {"video": "colours.mp4", "start": 7}, "the video is 6.0 s long"),
        ("get_frames", {"video": "colours.mp4", "start": 0, "end": 5, "count": 500}, "less than or equal to 8"),
        ("get_frames", {"video": "colours.mp4", "start": 30}, "the video is 6.0 s long"),
        ("add_video", {"path": "no-such-file.mp4"}, "no such file"),
        ("remove_video", {"video": "other.mp4"}, "call list_videos"),
    ],
)
@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_errors_are_messages_to_recover_from(
    library: VideoLibrary, name: str, arguments: dict[str, Any], told: str, mode: str
) -> None:
    request = ToolCall(name=name, args=arguments, id="1", type="tool_call")
    called = tool(library, name)
    message = called.invoke(request) if mode == "sync" else await called.ainvoke(request)
    assert message.status == "error"
    assert message.content.startswith("Error: ")
    assert told in message.content
    assert len(message.content) < 800


def test_a_part_that_is_too_long_to_watch(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    video = write_video(tmp_path / "long.mp4", [np.full((16, 16, 3), 9, np.uint8)] * 70, fps=1)
    library = open_small_library(tmp_path, watcher=FakeClipWatcher())
    library.add(video)
    told = use(library, "watch_clip", video="long.mp4", start=0, end=70)
    assert told.status == "error" and "at most 60 s long" in told.content and "search_video" in told.content


def test_a_video_that_is_gone_is_reported(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    library = make_small_library(tmp_path, write_video, watcher=FakeClipWatcher())
    (tmp_path / "more.mp4").unlink()
    told = use(library, "get_frames", video="more.mp4", start=0)
    assert told.status == "error" and "more.mp4" in told.content


def test_an_empty_library_says_so(tmp_path: Path) -> None:
    library = open_small_library(tmp_path, watcher=FakeClipWatcher())
    assert use(library, "list_videos").content == "The library is empty."
    assert "Nothing found" in use(library, "search_video", query="green", start=3).content
    assert "Not found" in use(library, "ask_video", question="is it green?").content
    assert "add a video first" in use(library, "read_transcript", video="talk.mp4").content


# ------------------------------------------------------------------------------------------------- event loop, threads


async def test_the_event_loop_is_not_blocked(library: VideoLibrary) -> None:
    model = Scripted(replies=["green [00:02]"], profile={"image_inputs": True})
    asked = tool(library, "ask_video", model=model)
    await asked.ainvoke({"question": "a green screen"})
    assert model.threads and threading.get_ident() not in model.threads


def test_one_library_serves_many_calls_at_once(library: VideoLibrary) -> None:
    searched = tool(library, "search_video")
    queries = [f"a {color} screen" for color in ("red", "green", "blue", "yellow")] * 4
    together = searched.batch([{"query": query, "k": 1} for query in queries], config={"max_concurrency": 8})
    assert together == [searched.invoke({"query": query, "k": 1}) for query in queries]
