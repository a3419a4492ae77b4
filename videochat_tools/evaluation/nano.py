"""The bundled nano on held-out clips of its world: ``python -m videochat_tools.evaluation.nano``.

Every part is measured on pairs of colour and shape that training showed and on pairs that it never showed; on the
former again with shuffled frames, with a black video and without any video: what is still right there was not seen.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from videochat_tools.evaluation.gates import control_table, gate_table
from videochat_tools.evaluation.generation import (
    OTHER_WORDS,
    TEXT_ONLY,
    ask_about_clips,
    draw_questions,
    score_replies,
    word_anew,
)
from videochat_tools.evaluation.held_out import VIEWS, held_out_scenes
from videochat_tools.evaluation.reading import dialogue_scores, transcript_scores
from videochat_tools.evaluation.retrieval import POOLS, embed, pool_scores, probe_scores
from videochat_tools.evaluation.statistics import Score, markdown_table, to_json

if TYPE_CHECKING:
    from videochat_tools.chat_model import ChatVideoChat

__all__ = ["PARTS", "evaluate_chat", "evaluate_reading", "evaluate_retrieval", "main"]

logger = logging.getLogger(__name__)

Sections = dict[str, list[Score]]
PARTS = ("retrieval", "chat", "reading")
_CHAT_VIEWS = ("video", OTHER_WORDS, *VIEWS[1:], TEXT_ONLY)
_GROUPS = {"known pairs": False, "new pairs": True}  # whether training never showed the pairs
_PER_FIGURE = 3  # scenes drawn for each question of a kind: not every scene allows every kind


def evaluate_retrieval(
    model: str | Path | None = None,
    *,
    clips: int = 2000,
    probes: int = 2000,
    controls: int = 300,
    groups: Sequence[str] = tuple(_GROUPS),
    device: str | None = None,
) -> Sections:
    """Recall and attribute probes by the retrieval heads.

    Args:
        model: Folder of the encoder; ``None`` is the bundled one.
        clips: Held-out clips of each group that are searched.
        probes: Clips asked about for one attribute, at most; taken from three times as many.
        controls: The same for new pairs, and where frames are shuffled or black.
        groups: "known pairs" of colour and shape, "new pairs", or both.
        device: As torch names it.
    """
    from videochat_tools.embeddings import ClipEmbeddings, load_encoder

    encoder = load_encoder(model, device=device)
    sections: Sections = {}
    for group in groups:
        new_pairs = _GROUPS[group]
        scenes = held_out_scenes(max(clips, _PER_FIGURE * probes), new_pairs=new_pairs)
        for view in ("video",) if new_pairs else VIEWS:
            began = time.perf_counter()
            limit = min(probes, controls) if new_pairs or view != "video" else probes
            scenes = scenes[: max(clips, _PER_FIGURE * limit)]
            embeddings = embed(encoder, scenes, view)
            features = None if embeddings.features is None else embeddings.features[:clips]
            searched = ClipEmbeddings(embeddings.vectors[:clips], features)
            sizes = [pool for pool in POOLS if pool <= clips]
            if view != "video":
                sizes = sizes[:1]
            scores = [score for pool in sizes for score in pool_scores(encoder, scenes[:clips], searched, pool)]
            scores += probe_scores(encoder, scenes, embeddings, limit=limit)
            sections[f"retrieval, {group}, {view}"] = scores
            logger.info("retrieval, %s, %s: %.0f s", group, view, time.perf_counter() - began)
    return sections


def evaluate_chat(
    model: str | Path | None = None,
    *,
    questions: int = 2000,
    controls: int = 300,
    groups: Sequence[str] = tuple(_GROUPS),
    views: Sequence[str] = _CHAT_VIEWS,
    device: str = "auto",
) -> Sections:
    """Answers by generation, greedy, one clip a question.

    Args:
        model: Folder of the chat model; ``None`` is the bundled one.
        questions: Of each kind, spread over three times as many clips.
        controls: The same in other words, where frames are shuffled or black, or where no clip is shown, spread over
            three times so many of the clips.
        groups: As for :func:`evaluate_retrieval`.
        views: Which of these; of new pairs there is "video" alone.
        device: As torch names it, or "auto".
    """
    chat = _chat(model, device)
    sections: Sections = {}
    for group in groups:
        new_pairs = _GROUPS[group]
        scenes = held_out_scenes(_PER_FIGURE * questions, new_pairs=new_pairs)
        for view in ("video",) if new_pairs else views:
            began = time.perf_counter()
            count, shown = questions if view == "video" else min(questions, controls), view
            asked = draw_questions(scenes[: _PER_FIGURE * count], count)
            if view == OTHER_WORDS:
                asked, shown = word_anew(asked), "video"
            sections[f"answers, {group}, {view}"] = score_replies(asked, ask_about_clips(chat, scenes, asked, shown))
            logger.info("answers, %s, %s: %.0f s", group, view, time.perf_counter() - began)
    return sections


def evaluate_reading(
    model: str | Path | None = None, *, questions: int = 2000, controls: int = 300, device: str = "auto"
) -> Sections:
    """Transcripts and dialogues; arguments as for :func:`evaluate_chat`."""
    chat = _chat(model, device)
    began = time.perf_counter()
    words, cited = transcript_scores(chat, questions)
    sections = {"transcripts": words, "transcripts, with times": cited}
    scenes = held_out_scenes(_PER_FIGURE * questions, new_pairs=False)
    for view in ("video", "blank"):
        count = questions if view == "video" else min(questions, controls)
        sections[f"dialogues, {view}"] = dialogue_scores(chat, scenes, count, view)
    logger.info("transcripts and dialogues: %.0f s", time.perf_counter() - began)
    return sections


def _chat(model: str | Path | None, device: str) -> ChatVideoChat:
    from videochat_tools.chat_model import ChatVideoChat

    return ChatVideoChat(model=None if model is None else str(model), device=device)


def _tasks(options: argparse.Namespace) -> list[tuple[str, Callable[[], Sections]]]:
    """What is to be measured, by part."""
    asked = {"questions": options.questions, "controls": options.controls, "device": options.device or "auto"}
    searched = {"clips": options.clips, "probes": options.probes, "controls": options.controls}
    retrieval = partial(evaluate_retrieval, options.retrieval, **searched, device=options.device)
    chat = partial(evaluate_chat, options.chat, **asked)
    known, new = ([group] for group in _GROUPS)
    # What is short comes last, so that no process is left alone with what is long.
    return [
        ("reading", partial(evaluate_reading, options.chat, **asked)),
        ("retrieval", partial(retrieval, groups=known)),
        ("chat", partial(chat, groups=known, views=_CHAT_VIEWS[:1])),
        ("chat", partial(chat, groups=new)),
        ("retrieval", partial(retrieval, groups=new)),
        *(("chat", partial(chat, groups=known, views=[view])) for view in _CHAT_VIEWS[1:]),
    ]


_Run = Callable[[Sequence[Callable[[], Sections]]], Iterator[Sections]]


@contextmanager
def _workers(processes: int) -> Iterator[_Run]:
    """Run tasks side by side, each process with its share of the cores; results come in their order."""
    if processes <= 1:
        yield lambda tasks: (task() for task in tasks)
        return
    threads = max((os.cpu_count() or 1) // processes, 1)
    spawn = multiprocessing.get_context("spawn")  # torch must not be forked once its threads run
    with ProcessPoolExecutor(processes, spawn, initializer=_set_up_worker, initargs=(threads,)) as pool:
        yield lambda tasks: pool.map(_call, tasks)


def _set_up_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s")


def _call(task: Callable[[], Sections]) -> Sections:
    return task()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print Markdown tables, and write JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m videochat_tools.evaluation.nano", description=main.__doc__)
    parser.add_argument("--clips", type=int, default=2000, help="held-out clips that are searched (default: 2000)")
    parser.add_argument("--probes", type=int, default=2000, help="clips for one attribute, at most (default: 2000)")
    parser.add_argument("--questions", type=int, default=2000, help="questions of each kind (default: 2000)")
    parser.add_argument("--controls", type=int, default=300, help="the same under the controls (default: 300)")
    parser.add_argument("--retrieval", type=Path, help="folder of a video encoder (default: the bundled nano)")
    parser.add_argument("--chat", type=Path, help="folder of a chat model (default: the bundled nano)")
    parser.add_argument("--only", choices=PARTS, help="measure one part")
    parser.add_argument("--device", help="cpu, cuda, … (default: a GPU if there is one)")
    parser.add_argument(
        "--processes", type=int, default=min(os.cpu_count() or 1, 4), help="side by side (default: one a core, up to 4)"
    )
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    sections: Sections = {}
    with _workers(options.processes) as run_all:
        for measured in run_all([task for name, task in _tasks(options) if options.only in (None, name)]):
            sections |= measured
    sys.stdout.write(f"\n## Gates\n\n{gate_table(sections)}\n")
    for part in ("retrieval", "answers"):
        if table := control_table(sections, part):
            sys.stdout.write(f"\n## {part}\n\n{table}\n")
    for section, scores in sections.items():
        if not section.startswith(("retrieval", "answers")):
            sys.stdout.write(f"\n## {section}\n\n{markdown_table(scores)}\n")
    if options.json is not None:
        options.json.write_text(to_json(sections, clips=options.clips) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
