"""The bundled nano put through whole benchmarks, as a user would: rendered clips, one process killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_benchmarks import MVBENCH_TASKS, mvbench

from videochat_tools.cli import main
from videochat_tools.errors import ContextTooLongError
from videochat_tools.evaluation.benchmarks import load_benchmark
from videochat_tools.evaluation.benchmarks.base import CONTROLS
from videochat_tools.evaluation.benchmarks.models import Models, VideoChatUnderTest
from videochat_tools.evaluation.benchmarks.needle import NeedleInHaystack
from videochat_tools.evaluation.benchmarks.runner import run_benchmark
from videochat_tools.models.videochat2.prompts import ChoicePrompt
from videochat_tools.training.world.sample import render_sample

ROOT = Path(__file__).resolve().parents[3]
NANO = ROOT / "videochat_tools" / "models" / "nano" / "chat"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (NANO / "config.json").is_file(), reason="no nano weights in this tree yet"),
]


def test_a_killed_run_of_mvbench_goes_on(
    tmp_path: Path, write_video: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = mvbench(tmp_path / "data", write_video, each=1)
    tasks = [argument for task in MVBENCH_TASKS for argument in ("--task", task)]
    arguments = ["eval", "mvbench", "--data", str(data), "--output", str(tmp_path / "out"), *tasks]
    log = tmp_path / "out" / "items.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "videochat_tools", *arguments], env=environment)
    while process.poll() is None and not (log.is_file() and log.read_bytes().count(b"\n")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = log.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert whole
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--json"])
    assert not exit_.value.code
    result = json.loads(capsys.readouterr().out)
    assert log.read_bytes().startswith(whole), "what was measured before is kept"
    assert result["counts"] == {"answered": 4, "missing": 1}
    assert result["model"] == "nano"
    assert {name: score["total"] for name, score in result["scores"]["strict, by task"].items()} == {
        "action_count": 1, "action_sequence": 1, "moving_attribute": 2, "episodic_reasoning": 1
    }  # fmt: skip
    assert result["scores"]["official"]["all"]["total"] == 5
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(line["prediction"].startswith("(") for line in lines if line["status"] == "answered")


def test_the_model_is_asked_in_the_words_of_the_notebooks() -> None:
    """Prompt of MVBench: what reaches the tokenizer is what the released notebooks build for vicuna."""
    model = VideoChatUnderTest()
    prompt = ChoicePrompt()
    network = model._engine.network
    question = "Question: Which?\nOptions:\n(A) x\n(B) y"
    messages = prompt.messages(network.processor.template, question)
    rendered = network.processor.render_chat(messages, system=prompt.system, answer_start=prompt.answer_start)
    assert rendered == (
        f"{prompt.system}###Human: <Video><VideoHere></Video>\n###Human: {prompt.system}{question}"
        "\nOnly give the best option.\n###Assistant: Best option:("
    )


def test_a_model_can_be_shown_more_frames_than_it_was_trained_with() -> None:
    import numpy as np

    prompt = ChoicePrompt()
    usual, twice = VideoChatUnderTest(), VideoChatUnderTest(frames=16)
    assert (usual.num_frames, twice.num_frames) == (8, 16)
    assert usual.identity != twice.identity, "a run with another number of frames is another run"
    frames = np.zeros((16, 64, 64, 3), np.uint8)
    assert isinstance(twice.answer(prompt, "Question: Which?\nOptions:\n(A) x\n(B) y", frames, max_tokens=4), str)


def test_a_video_and_its_subtitles_change_the_answer_only_where_they_are_given() -> None:
    import numpy as np

    model = VideoChatUnderTest()
    prompt = ChoicePrompt(system="", question_end="", answer_start="", return_start="")
    question = "what is said?"
    frames = np.zeros((model.num_frames, 64, 64, 3), np.uint8)
    told = 'They say: "the harbour opens at nine on monday"\n'
    answers = {
        (shown, before): model.answer(prompt, question, frames if shown else None, before=before, max_tokens=8)
        for shown in (True, False)
        for before in ("", told)
    }
    assert answers[True, ""] == model.answer(prompt, question, frames, max_tokens=8)
    assert answers[True, told] != answers[True, ""]
    model.answer(prompt, question, frames, before=told * 400, max_tokens=8)  # thinned out until it fits
    with pytest.raises(ContextTooLongError):
        model.answer(prompt, question * 400, frames, max_tokens=8)


def test_needles_are_found_in_haystacks_of_minutes(tmp_path: Path) -> None:
    def benchmark(*hours: float) -> NeedleInHaystack:
        return load_benchmark("needle", hours=hours, needles=1, seconds=15)  # type: ignore[return-value]

    output, cache, models = tmp_path / "out", tmp_path / "cache", Models()
    first = benchmark(0.02)
    result = run_benchmark(first, output, models, cache=cache)
    hay = first._library.haystack
    assert hay.duration == pytest.approx(0.02 * 3600, abs=8)
    shown = {(thing.colour, thing.shape) for scene in hay.scenes for thing in scene.things}
    assert not shown & first._pairs
    assert result.facts["decoded"] == "0.2 minutes of H.264 video in 1 files with a needle each"
    assert f"{hay.count} rendered scenes" in result.facts["never encoded or decoded"]
    found = {score.name: score for score in result.sections["needles"]}
    assert found["0.02 h: found @5"].correct >= 1, "of two, by an encoder that finds nearly all captions"  # type: ignore[union-attr]
    assert found["0.02 h: found and answered"].total == 2
    kinds = {score.name for score in result.sections["found and answered, by kind"]}
    assert kinds == {"0.02 h: said", "0.02 h: direction"}
    kept = {path: path.stat().st_mtime_ns for path in (*cache.rglob("*.npy"), *output.rglob("*.mp4"))}
    assert len(kept) == 2
    longer = run_benchmark(benchmark(0.02, 0.2), output, models, cache=cache)
    assert longer.counts == {"answered": 4}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "nothing is rendered or embedded twice"
    names = [score.name for score in longer.sections["needles"]]
    assert names == [name.replace("0.02", hours) for hours in ("0.02", "0.2") for name in found]
    assert [score for score in longer.sections["needles"] if score.name in found] == list(found.values())
    for control in CONTROLS:
        result = run_benchmark(benchmark(0.02), tmp_path / control, models, cache=cache, control=control)
        assert result.counts == {"answered": 2}
        assert ("found @1" in str(result.sections)) is (control == "blank")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "the controls use the same haystack"


def test_citations_of_a_sample_video(tmp_path: Path) -> None:
    render_sample(tmp_path / "data" / "sample.mp4", minutes=0.5, seed=3)
    (tmp_path / "data" / "broken.mp4").write_bytes(b"no video")
    timeline = json.loads((tmp_path / "data" / "sample.timeline.json").read_text())
    broken = {"questions": timeline["questions"][:1], "absent_questions": []}
    (tmp_path / "data" / "broken.timeline.json").write_text(json.dumps(broken))
    benchmark = load_benchmark("citations", tmp_path / "data")
    result = run_benchmark(benchmark, tmp_path / "out", Models(), limit=8)
    assert result.counts == {"answered": 7, "unreadable": 1}
    by_name = {score.name: score for scores in result.sections.values() for score in scores}
    recall = by_name["recall: questions whose moment is cited"]
    assert recall.correct > 0  # type: ignore[union-attr]
    cited, counts = {}, {"blank": {"answered": 7, "unreadable": 1}, "uniform": {"answered": 7, "unreadable": 1}}
    for control in CONTROLS:
        result = run_benchmark(benchmark, tmp_path / control, Models(), limit=8, control=control)
        assert result.counts == counts.get(control, {"answered": 8})
        cited[control] = "citations" in result.sections
    assert cited == {"blank": True, "text-only": False, "uniform": False}, "where nothing is searched nothing is cited"
