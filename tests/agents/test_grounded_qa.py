"""The grounded-QA graph: its answers, its memory, what each kind of chat model is shown."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from PIL import Image
from small_library import Scripted, call, open_small_library

from videochat_tools.agents import create_grounded_qa, create_video_agent
from videochat_tools.context import NOT_FOUND
from videochat_tools.errors import UnknownVideoError
from videochat_tools.testing import FakeClipWatcher
from videochat_tools.types import TimeSpan
from videochat_tools.video_library import VideoLibrary

World = tuple[VideoLibrary, dict[str, tuple[str, str, float, float]]]
BUMP = TimeSpan(6.0, 12.0)  # where the red circle bumps into the blue square
GREEN = "what is seen while the screen is green?"


def thread(name: str = "1") -> dict[str, Any]:
    return {"configurable": {"thread_id": name}}


@pytest.fixture
def library(colours: Path) -> VideoLibrary:
    return open_small_library(colours, watcher=FakeClipWatcher())


# ------------------------------------------------------------------------------------------------------------ answers


def test_it_answers_as_the_library_does(library: VideoLibrary) -> None:
    for question, reply in ((GREEN, "green [00:02–00:04], red [03:00–03:01]"), ("a purple screen", "purple")):
        asked = library.ask(question, model=Scripted(replies=[reply]))
        assert create_grounded_qa(library, model=Scripted(replies=[reply])).invoke(question) == asked


def test_options_filter_and_do_not_stay_for_the_next_turn(library: VideoLibrary) -> None:
    qa = create_grounded_qa(library, model=Scripted(replies=["green", "green"]), checkpointer=InMemorySaver())
    refused = qa.invoke({"question": GREEN, "videos": ["more.mp4"], "span": TimeSpan(0, 2), "k": 1}, thread())
    assert not refused.found
    assert qa.invoke(GREEN, thread()).evidence[0].video == "colours.mp4"
    with pytest.raises(UnknownVideoError, match=r"nothing\.mp4"):
        qa.invoke({"question": GREEN, "videos": ["nothing.mp4"]}, thread())


@pytest.mark.parametrize("asked", ["  ", {}, {"question": ""}, {"query": GREEN}, {"question": GREEN, "clip": 1}])
def test_what_it_cannot_take_is_an_error(library: VideoLibrary, asked: Any) -> None:
    with pytest.raises(ValueError, match="grounded QA needs a question"):
        create_grounded_qa(library).invoke(asked)


def test_spans_and_history_are_taken_as_people_write_them(library: VideoLibrary) -> None:
    qa = create_grounded_qa(library, model=Scripted(replies=["green"] * 2))
    assert qa.invoke({"question": GREEN, "span": (1, 5)}).found
    assert qa.invoke({"question": "what colour was it?", "history": [("user", GREEN), ("ai", "green")]}).found
    with pytest.raises(ValueError, match="time span needs"):
        qa.invoke({"question": GREEN, "span": (5, 1)})
    for wrong in ("high", 3, -0.5):
        with pytest.raises(ValueError, match=r"threshold must be a score of 0\.\.1"):
            qa.invoke({"question": GREEN, "threshold": wrong})


def test_the_steps_can_be_followed(library: VideoLibrary) -> None:
    qa = create_grounded_qa(library, model=Scripted(replies=["green [00:02]"]))
    steps = [name for update in qa.graph.stream(qa.inputs(GREEN), stream_mode="updates") for name in update]
    assert steps == ["condense", "retrieve", "watch", "answer", "verify"]
    unfound = [name for update in qa.graph.stream(qa.inputs("purple"), stream_mode="updates") for name in update]
    assert unfound == ["condense", "retrieve", "verify"]


async def test_the_event_loop_is_not_blocked(library: VideoLibrary) -> None:
    model = Scripted(replies=["green [00:02]"])
    answer = await create_grounded_qa(library, model=model).ainvoke(GREEN)
    assert answer.text == "green [00:02–00:04]"
    assert threading.get_ident() not in model.threads


def test_it_is_a_tool_too(library: VideoLibrary) -> None:
    tool = create_grounded_qa(
        library, model=Scripted(replies=["green [00:02]"] * 2), checkpointer=InMemorySaver()
    ).tool()
    assert tool.invoke({"question": GREEN, "videos": ["colours"], "start": 1, "end": 5}).startswith("Answer: green")
    brain = Scripted(replies=[call("ask_graph", question=GREEN), "It is green [00:02–00:04]."])
    agent = create_video_agent(brain, library, tools=[tool.model_copy(update={"name": "ask_graph"})])
    assert agent.invoke({"messages": [("user", GREEN)]})["messages"][-1].text == "It is green [00:02–00:04]."


# ----------------------------------------------------------------------------------------- what a chat model is shown


def test_a_model_that_sees_is_shown_pictures(library: VideoLibrary) -> None:
    model = Scripted(replies=["green [00:02]"], profile={"image_inputs": True})
    assert create_grounded_qa(library, model=model).invoke({"question": GREEN, "k": 1}).found
    blocks = model.heard[0][-1].content
    assert [block["type"] for block in blocks] == ["text", *["image"] * 4, "text"]
    assert blocks[0]["text"].startswith("colours.mp4 [00:02–00:04]")
    with Image.open(io.BytesIO(base64.b64decode(blocks[1]["base64"]))) as image:
        red, green, blue = np.asarray(image.convert("RGB")).mean(axis=(0, 1))
    assert green > 2 * max(red, blue)


def test_a_model_that_reads_is_given_words(library: VideoLibrary) -> None:
    model = Scripted(replies=['"nine" [00:04]'])
    assert create_grounded_qa(library, model=model).invoke("what is said about the harbour?").found
    assert 'They say: "The harbour opens at nine."' in model.heard[0][-1].content
    assert "In the picture" not in model.heard[0][-1].content  # nobody here knows what is seen


def test_the_nano_answers_and_remembers(world: World) -> None:
    library, questions = world
    asked, truth, *_ = questions["colour"]
    qa = create_grounded_qa(library, checkpointer=InMemorySaver())
    first = qa.invoke(asked, thread())
    assert first == library.ask(asked)
    assert truth in first.text
    follow_up = qa.invoke("what colour was it?", thread())
    assert truth in follow_up.text
    assert follow_up.evidence[0].span == first.evidence[0].span
    assert not qa.invoke("what colour was it?", thread("another")).found


def test_the_nano_describes_clips_for_a_model_that_reads(world: World) -> None:
    library, questions = world
    model = Scripted(replies=["star"])
    assert create_grounded_qa(library, model=model).invoke(questions["which"][0]).found
    assert 'In the picture: "' in model.heard[0][-1].content
    assert "red" in model.heard[0][-1].content.partition("Question:")[0]


# ------------------------------------------------------------------------------------------------------------- memory


def test_who_bumps_the_square_and_what_colour_was_it(world: World) -> None:
    qa = create_grounded_qa(world[0], checkpointer=InMemorySaver())
    answers = [qa.invoke(asked, thread()) for asked in ("who bumps the square?", "what colour was it?")]
    for answer in answers:
        assert answer.found
        assert answer.evidence[0].span.iou(BUMP) > 0.9
    assert "red" in answers[1].text
    after = qa.invoke("and then?", thread())
    assert after.evidence[0].span.start == pytest.approx(BUMP.end, abs=0.2)
    before = qa.invoke("what happened before that?", thread("2"))
    assert not before.found  # another thread, in which nothing was asked before


def test_a_follow_up_is_searched_with_what_it_leans_on(library: VideoLibrary) -> None:
    model = Scripted(replies=["it is green [00:02]", "green", "blue"])
    qa = create_grounded_qa(library, model=model, checkpointer=InMemorySaver())
    first = qa.invoke(GREEN, thread())
    second = qa.invoke("what colour was it?", thread())
    assert second.evidence[0].span == first.evidence[0].span
    told = [message.text for message in model.heard[-1]]
    assert told[1:3] == [GREEN, "it is green [00:02–00:04]"]
    assert not qa.invoke("what colour was it?", thread("another")).found


def test_a_chat_model_may_condense(library: VideoLibrary) -> None:
    condenser = Scripted(replies=["what is seen while the screen is blue?"])
    qa = create_grounded_qa(
        library, model=Scripted(replies=["green", "blue"]), condenser=condenser, checkpointer=InMemorySaver()
    )
    qa.invoke(GREEN, thread())
    assert condenser.replies  # the first question stands by itself
    answer = qa.invoke("and the colour after that one?", thread())
    assert round(answer.evidence[0].span.start) == 4
    assert [message.text for message in condenser.heard[0][1:]] == [GREEN, "green", "and the colour after that one?"]


def test_given_history_counts_as_earlier_turns(library: VideoLibrary) -> None:
    history = [HumanMessage(GREEN), AIMessage("green [00:02–00:04]")]
    qa = create_grounded_qa(library, model=Scripted(replies=["green"]))
    assert qa.invoke({"question": "what colour was it?", "history": history}).found


def test_a_long_conversation_goes_on_without_its_oldest_turns(library: VideoLibrary) -> None:
    model = Scripted(replies=["green " + "and so on " * 400, *["green"] * 8])
    qa = create_grounded_qa(library, model=model, checkpointer=InMemorySaver())
    for turn in range(9):
        assert qa.invoke(f"{GREEN} {'please ' * 250 * (turn > 0)}", thread()).found
    told = model.heard[-1]
    assert 3 < len(told) < 18
    assert told[1].type == "human" and told[-2].text == "green"


PROGRAM = """
import sys
from pathlib import Path
from langgraph.checkpoint.sqlite import SqliteSaver
from small_library import Scripted, open_small_library
from videochat_tools.agents import create_grounded_qa, create_video_agent
from videochat_tools import VideoLibrary
from videochat_tools.testing import FakeClipWatcher

folder, database, world = map(Path, sys.argv[1:])
library = open_small_library(folder, watcher=FakeClipWatcher())
thread = {"configurable": {"thread_id": "1"}}
with SqliteSaver.from_conn_string(str(database)) as saver:
    nano = create_grounded_qa(VideoLibrary(world), checkpointer=saver)
    print(nano.invoke("what colour was it?", {"configurable": {"thread_id": "nano"}}).evidence[0].span)
    model = Scripted(replies=["green [00:02]"])
    print(create_grounded_qa(library, model=model, checkpointer=saver).invoke("what colour was it?", thread).text)
    print([message.text for message in model.heard[0][1:3]])
    brain = Scripted(replies=["It was green, as I said [00:02–00:04], not [09:00–09:10]."])
    agent = create_video_agent(brain, library, checkpointer=saver)
    result = agent.invoke({"messages": [("user", "what colour was it?")]}, {"configurable": {"thread_id": "agent"}})
    print(result["messages"][-1].text)
    print([message.type for message in brain.heard[0]])
"""


def test_a_conversation_goes_on_in_another_process(
    library: VideoLibrary, world: World, colours: Path, tmp_path: Path
) -> None:
    database = tmp_path / "conversations.db"
    with SqliteSaver.from_conn_string(str(database)) as saver:
        qa = create_grounded_qa(library, model=Scripted(replies=["it is green [00:02]"]), checkpointer=saver)
        assert qa.invoke(GREEN, thread()).found
        brain = Scripted(replies=[call("search_video", query="a green screen"), "It is green [00:02–00:04]."])
        agent = create_video_agent(brain, library, checkpointer=saver)
        agent.invoke({"messages": [("user", GREEN)]}, thread("agent"))
        asked = create_grounded_qa(world[0], checkpointer=saver).invoke("who bumps the square?", thread("nano"))
    paths = f"{Path(__file__).parents[1]}:{Path(__file__).parents[2]}"
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(colours), str(database), str(world[0].path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    nano_span, answer, earlier, agent_answer, heard = run.stdout.splitlines()
    assert nano_span == str(asked.evidence[0].span)
    assert answer == "green [00:02–00:04]"
    assert earlier == str([GREEN, "it is green [00:02–00:04]"])
    assert agent_answer == "It was green, as I said [00:02–00:04], not."
    assert heard == str(["system", "human", "ai", "tool", "ai", "human"])
    assert "unregistered" not in run.stderr  # every value of the state is one that checkpoints may hold
    assert NOT_FOUND not in run.stdout
