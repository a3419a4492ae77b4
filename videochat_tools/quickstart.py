"""The main job from one end to the other on a video with known answers: ``python -m videochat_tools.quickstart``."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videochat_tools.cli import add_progress, open_library, print_error, quieten
from videochat_tools.errors import VideoChatError
from videochat_tools.evaluation.answers import same_answer, same_place
from videochat_tools.types import Answer, TimeSpan

__all__ = ["SampleQuestion", "is_right", "main", "pick_questions", "read_questions"]


@dataclass(frozen=True, slots=True)
class SampleQuestion:
    """A question about a sample video, with the answer and the span that the generator knows to be true."""

    kind: str
    question: str
    answer: str
    span: TimeSpan


def read_questions(timeline: Path) -> list[SampleQuestion]:
    """The questions of a ``.timeline.json`` file that ``videochat sample`` wrote."""
    entries: list[dict[str, Any]] = json.loads(timeline.read_text(encoding="utf-8"))["questions"]
    return [
        SampleQuestion(entry["type"], entry["question"], entry["answer"], TimeSpan(entry["start"], entry["end"]))
        for entry in entries
    ]


def pick_questions(questions: Sequence[SampleQuestion], count: int) -> list[SampleQuestion]:
    """``count`` questions, of as many kinds as there are, spread over the video; always the same ones."""
    by_kind: dict[str, list[SampleQuestion]] = {}
    for question in questions:
        by_kind.setdefault(question.kind, []).append(question)
    for number, group in enumerate(by_kind.values()):  # start each kind at another place of the video
        offset = number * len(group) // len(by_kind)
        group[:] = group[offset:] + group[:offset]
    rounds = max((len(group) for group in by_kind.values()), default=0)
    picked = [group[turn] for turn in range(rounds) for group in by_kind.values() if turn < len(group)]
    return picked[:count]


def is_right(answer: Answer, question: SampleQuestion) -> bool:
    """Whether the answer says what is true and rests on the moment where it is to be seen or heard."""
    return (
        answer.found
        and same_answer(answer.text, question.answer, question.kind)
        and any(same_place(evidence.span, question.span) for evidence in answer.evidence)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Render a sample, add it to a library, ask questions, and compare the answers with the truth.

    Returns:
        0 when it went through, however many answers are right; 1 after an error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m videochat_tools.quickstart",
        description="Render a sample video, add it to a library, ask questions, compare the answers with the truth.",
    )
    parser.add_argument("--folder", type=Path, default=Path("quickstart"), help="where the video and library go")
    parser.add_argument("--minutes", type=float, default=10, help="length of the sample video (default: 10)")
    parser.add_argument("--seed", type=int, default=7, help="another seed makes another video (default: 7)")
    parser.add_argument("--questions", type=int, default=5, help="how many questions to ask (default: 5)")
    options = parser.parse_args(arguments)
    quieten()
    try:
        run(options.folder, options.minutes, options.seed, options.questions)
    except VideoChatError as error:
        print_error(error)
        return 1
    return 0


def run(folder: Path, minutes: float, seed: int, count: int) -> tuple[int, int]:
    """The whole of it, told on standard output. Returns how many answers are right, and of how many."""
    from videochat_tools.picture import render_answer
    from videochat_tools.training.world.sample import render_sample

    folder.mkdir(parents=True, exist_ok=True)
    video = folder / f"sample-{minutes:g}min-seed{seed}.mp4"
    timeline = video.with_suffix(".timeline.json")
    if video.exists():  # it is put there last
        _say(f"1. The sample video is there already: {video}")
    else:
        _say(f"1. Rendering a sample video of {minutes:g} minutes: {video}")
        began = time.perf_counter()
        render_sample(video, minutes=minutes, seed=seed)
        _say(f"   done in {time.perf_counter() - began:.0f} s")

    _say("2. Adding it to a library: cutting it into shots, watching them, reading the subtitles")
    began = time.perf_counter()
    library = open_library(folder / "library", create=True)
    (result,) = library.add(video, progress=add_progress())
    if result.error is not None:
        raise result.error
    _say(f"   {result.status} in {time.perf_counter() - began:.0f} s")

    known = read_questions(timeline)
    questions = pick_questions(known, count)
    _say(f"3. Asking {len(questions)} questions (the truth is in {timeline.name}, which the library never reads)\n")
    answers: list[tuple[Answer, bool]] = []
    for number, question in enumerate(questions, start=1):
        began = time.perf_counter()
        answer = library.ask(question.question, videos=[video.name])
        seconds = time.perf_counter() - began
        correct = is_right(answer, question)
        answers.append((answer, correct))
        cited = ", ".join(f"[{evidence.span}]" for evidence in answer.evidence) or "none"
        _say(f"   {number}. {question.question}")
        _say(f"      answer    {answer.text}   ({seconds:.1f} s)")
        _say(f"      evidence  {cited}")
        _say(f"      truth     {question.answer}  [{question.span}]")
        _say(f"      {'RIGHT' if correct else 'WRONG'}\n")
    right = sum(correct for _, correct in answers)
    _say(f"{right} of {len(questions)} right.")
    shown = max(answers, key=lambda pair: (pair[1], len(pair[0].evidence)), default=None)
    if shown is not None:
        _say(f"One of the answers as a picture: {render_answer(shown[0], folder / 'answer.png')}")
    left = (one.question for one in known if one.kind == "said" and one not in questions)
    own = next(left, "what is said?")
    _say(f"Ask your own: .venv/bin/videochat ask {shlex.quote(own)} --library {shlex.quote(str(folder / 'library'))}")
    return right, len(questions)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
