"""Batches that follow from the seed alone: over processes, workers and interruptions; and what cannot be read."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from videochat_tools.errors import TrainingDataError
from videochat_tools.models.frame_sampling import training_frame_indices
from videochat_tools.training.data import ClipSampling, Corpus, Mixture, SampleBatch
from videochat_tools.training.released import InstructionSample

Numbers = Callable[[Tensor], list[int]]
Write = Callable[[Path, Sequence[Any]], Path]

AUGMENTED = ClipSampling(num_frames=2, size=16)


def same(first: SampleBatch, second: SampleBatch) -> bool:
    return (
        (first.medium, first.samples, first.ids, first.times)
        == (second.medium, second.samples, second.ids, second.times)
        and len(first.pixels) == len(second.pixels)
        and all(torch.equal(one, other) for one, other in zip(first.pixels, second.pixels, strict=True))
    )


def all_same(first: Iterable[SampleBatch], second: Iterable[SampleBatch]) -> bool:
    return all(same(one, other) for one, other in zip(first, second, strict=True))


def answers(batch: SampleBatch) -> list[str]:
    return [s.turns[0].answer if isinstance(s, InstructionSample) else s.caption for s in batch.samples]


# The order of an epoch


def test_a_batch_shows_one_medium_and_its_parts_belong_together(
    corpora: list[Corpus], sampling: ClipSampling, numbers: Numbers
) -> None:
    mixture = Mixture(corpora, replace(sampling, sample="middle"), batch_size=2, seed=1)
    batches = list(mixture.epoch(0))
    assert len(mixture) == len(batches) == 4 + 3 + 2  # one of the five texts is left over
    assert Counter(batch.medium for batch in batches) == mixture.counts == {"video": 4, "image": 3, "text": 2}
    assert list(mixture.samples.values()) == [8, 6, 5]
    for batch in batches:
        assert len(batch.samples) == len(batch.ids) == 2
        assert {sample.kind or "text" for sample in batch.samples} == {batch.medium}
        if batch.medium == "text":
            assert batch.pixels == batch.times == ()
            continue
        for sample, pixels, times in zip(batch.samples, batch.pixels, batch.times, strict=True):
            if batch.medium == "image":
                assert sample.path == f"{numbers(pixels)[0]}.png" and times == ()
            else:  # of video n, which has 20 + n frames
                assert sample.path is not None
                assert numbers(pixels) == [round(10 * time) for time in times]
                assert numbers(pixels) == training_frame_indices(20 + int(sample.path[0]), 4, "middle")


def test_an_epoch_shows_everything_once_and_the_next_in_another_order(corpora: list[Corpus]) -> None:
    mixture = Mixture(corpora, AUGMENTED, batch_size=1, seed=3)
    epochs = [list(mixture.epoch(number)) for number in range(2)]
    shown = [[sample.path for batch in epoch for sample in batch.samples] for epoch in epochs]
    assert sorted(map(str, shown[0])) == sorted(map(str, shown[1]))
    assert Counter(shown[0]) == {f"{n}.mp4": 1 for n in range(8)} | {f"{n}.png": 1 for n in range(6)} | {None: 5}
    assert shown[0] != shown[1]
    assert [batch.medium for batch in epochs[0]] != [batch.medium for batch in epochs[1]]
    other = Mixture(corpora, AUGMENTED, batch_size=1, seed=4)
    assert [batch.ids for batch in other.epoch(0)] != [batch.ids for batch in epochs[0]]


def test_media_stand_in_proportion_and_well_mixed(tmp_path: Path, write: Write) -> None:
    texts = [{"QA": [{"q": f"{number}", "a": "yes"}]} for number in range(900)]
    parts = [write(tmp_path / f"{part}.jsonl", texts[first::3]) for part, first in (("a", 0), ("b", 1), ("c", 2))]
    mixture = Mixture([Corpus(part, tmp_path, "text") for part in parts], AUGMENTED, batch_size=90)
    batch = next(iter(mixture.epoch(0)))
    shares = Counter(int(sample.turns[0].question) % 3 for sample in batch.samples)  # type: ignore[union-attr]
    assert all(15 <= shares[part] <= 45 for part in range(3))  # one loader a medium, whatever the corpus


def test_turns_are_shuffled_unless_they_build_on_each_other(corpora: list[Corpus]) -> None:
    talks = corpora[0]

    def orders(corpus: Corpus) -> set[tuple[str, ...]]:
        mixture = Mixture([corpus], AUGMENTED, batch_size=8)
        batches = [batch for epoch in range(3) for batch in mixture.epoch(epoch)]
        return {tuple(turn.question for turn in s.turns) for b in batches for s in b.samples}  # type: ignore[union-attr]

    assert len(orders(talks)) == 6
    assert orders(replace(talks, shuffle_turns=False)) == {("question 0", "question 1", "question 2")}


def test_one_video_has_one_identity_and_parts_have_their_own(media: Path, tmp_path: Path, write: Write) -> None:
    def entry(**more: Any) -> dict[str, Any]:
        return {"video": "0.mp4", "QA": [{"q": "", "a": "x"}], **more}

    entries = [entry(), entry(), entry(start=0.0, end=1.0), entry(start=1, end=2), {**entry(), "video": "1.mp4"}]
    first = Mixture([Corpus(write(tmp_path / "a.json", entries), media / "videos", "video")], AUGMENTED, batch_size=5)
    (batch,) = first.epoch(0)
    assert len(set(batch.ids)) == 4 and all(0 <= number < 2**63 for number in batch.ids)
    captions = [{"video": "0.mp4", "caption": "x"}]  # the same video in another corpus
    second = Mixture([Corpus(write(tmp_path / "b.json", captions), media / "videos", "video")], AUGMENTED, batch_size=1)
    assert next(iter(second.epoch(0))).ids[0] in batch.ids


# Processes, workers, interruptions


def test_two_processes_see_together_what_one_sees_at_twice_the_size(corpora: list[Corpus]) -> None:
    sizes = {"video": 2, "image": 1, "text": 1}
    one = Mixture(corpora, AUGMENTED, batch_size={medium: 2 * size for medium, size in sizes.items()}, seed=7)
    two = [Mixture(corpora, AUGMENTED, batch_size=sizes, seed=7, rank=rank, world_size=2) for rank in range(2)]
    assert len(one) == len(two[0]) == len(two[1])
    for whole, left, right in zip(one.epoch(1), two[0].epoch(1), two[1].epoch(1), strict=True):
        joined = SampleBatch(
            left.medium,
            left.samples + right.samples,
            left.ids + right.ids,
            left.pixels + right.pixels,
            left.times + right.times,
        )
        assert same(whole, joined)


def test_an_epoch_can_be_entered_anywhere_without_reading_what_comes_before(
    corpora: list[Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(Mixture(corpora, AUGMENTED, batch_size=2).epoch(2))
    entered = Mixture(corpora, AUGMENTED, batch_size=2)
    read: list[Any] = []
    inner = entered._read_clip

    def counted(request: Any) -> Any:
        read.append(request)
        return inner(request)

    monkeypatch.setattr(entered, "_read_clip", counted)
    assert all_same(entered.epoch(2, start=5), whole[5:])
    assert len(read) == sum(len(batch.pixels) for batch in whole[5:])
    assert list(entered.epoch(2, start=len(whole))) == []


def test_workers_change_nothing_and_read_on_after_a_break(corpora: list[Corpus]) -> None:
    plain = [list(Mixture(corpora, AUGMENTED, batch_size=2).epoch(epoch)) for epoch in range(2)]
    with Mixture(corpora, AUGMENTED, batch_size=2, workers=2) as mixture:
        assert all_same(mixture.epoch(0), plain[0])
        broken_off = mixture.epoch(1)
        assert same(next(broken_off), plain[1][0])
        broken_off.close()  # type: ignore[attr-defined]
        assert all_same(mixture.epoch(1, start=1), plain[1][1:])
        pids = mixture.worker_pids
        assert len(pids) == 2
    assert not any(is_running(pid) for pid in pids)
    with pytest.raises(TrainingDataError, match="make a new mixture"):
        next(iter(mixture.epoch(0)))


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")  # ended, and its parent has not looked yet


# What cannot be read


@pytest.fixture
def spoilt(media: Path, tmp_path: Path, write: Write) -> Corpus:
    """Five images of which the third is none, the fourth is not there, and the last entry has no caption."""
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes((media / "images" / f"{number}.png").read_bytes())
    (tmp_path / "2.png").write_text("no picture")
    entries: list[Any] = [{"image": f"{number}.png", "caption": f"picture {number}"} for number in range(4)]
    return Corpus(write(tmp_path / "images.jsonl", [*entries, {"image": "0.png"}]), tmp_path, "image")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_replaced_and_counted(
    spoilt: Corpus, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    with Mixture([spoilt], AUGMENTED, batch_size=5, workers=workers) as mixture, caplog.at_level(logging.WARNING):
        for epoch in range(3):
            (batch,) = mixture.epoch(epoch)
            assert set(answers(batch)) == {"picture 0", "picture 1"} and len(batch.pixels) == 5
        failures = mixture.failures
        assert {Path(place).name for place in failures.counts} == {"2.png", "3.png", "images.jsonl, entry 5"}
        assert all(count >= 3 for count in failures.counts.values())
        told = failures.report().splitlines()
        assert told[0] == f"{failures.total} samples of 3 media could not be read:"
        assert any("2.png is no readable picture" in line for line in told)
        assert any("no such file" in line and "3.png" in line for line in told)
        assert any("entry 5" in line and "'caption'" in line for line in told)
        assert failures.to_dict()["total"] == sum(each["count"] for each in failures.to_dict()["media"])
        assert len([record for record in caplog.records if "replaced" in record.message]) == 3  # once each
    if workers:
        again = Mixture([spoilt], AUGMENTED, batch_size=5)
        assert all_same(again.epoch(2), [batch])
        assert Mixture([spoilt], AUGMENTED, batch_size=5).failures.report() == ""


def test_a_corpus_of_which_nothing_can_be_read_is_an_error(tmp_path: Path, write: Write) -> None:
    entries = [{"image": f"{number}.png", "caption": "x"} for number in range(3)]
    mixture = Mixture([Corpus(write(tmp_path / "a.json", entries), tmp_path, name="lost")], AUGMENTED, batch_size=1)
    with pytest.raises(TrainingDataError, match="none of 3 samples of lost could be read; the last: no such file"):
        next(iter(mixture.epoch(0)))


def test_a_corpus_of_another_medium_is_told(corpora: list[Corpus]) -> None:
    wrong = replace(corpora[0], medium="image")
    with pytest.raises(TrainingDataError, match="shows video, but its corpus is of image; split the file"):
        next(iter(Mixture([wrong], AUGMENTED, batch_size=1).epoch(0)))


def hang(path: Path) -> None:
    """A file whose opening never ends: a pipe that nobody writes to."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes to make a file that never ends")
def test_a_file_that_hangs_the_decoder_is_given_up(spoilt: Corpus, media: Path) -> None:
    (spoilt.root / "3.png").write_bytes((media / "images" / "3.png").read_bytes())
    hang(spoilt.root / "2.png")
    with Mixture([spoilt], AUGMENTED, batch_size=5, workers=2, time_limit=2.0) as mixture:
        shown = [answer for epoch in range(3) for batch in mixture.epoch(epoch) for answer in answers(batch)]
        assert set(shown) == {"picture 0", "picture 1", "picture 3"} and len(shown) == 15
        (reason,) = (text for place, text in mixture.failures.reasons.items() if place.endswith("2.png"))
        assert reason.endswith("2.png kept the decoder busy for over 2 s; check it, or raise time_limit")
        assert mixture.failures.counts[str(spoilt.root / "2.png")] >= 3  # each time, but it is tried once


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes to hold a decoder until it is killed")
def test_a_file_that_crashes_the_decoder_is_given_up(spoilt: Corpus, media: Path) -> None:
    (spoilt.root / "3.png").write_bytes((media / "images" / "3.png").read_bytes())
    hang(spoilt.root / "2.png")
    with Mixture([spoilt], AUGMENTED, batch_size=5, workers=1) as mixture:

        def crash() -> None:  # as a fault in the decoder would: while it is busy with the file
            while not mixture.worker_pids:
                time.sleep(0.05)
            time.sleep(2.0)
            os.kill(mixture.worker_pids[0], signal.SIGSEGV)

        threading.Thread(target=crash, daemon=True).start()
        (batch,) = mixture.epoch(0)
        assert set(answers(batch)) <= {"picture 0", "picture 1", "picture 3"}
        assert mixture.failures.reasons[str(spoilt.root / "2.png")].endswith("crashed the decoder (SIGSEGV); check it")


ORPHANS = """
import sys
from videochat_tools.training.data import ClipSampling, Corpus, Mixture
if __name__ == "__main__":
    corpus = Corpus(sys.argv[1], sys.argv[2], "image")
    mixture = Mixture([corpus], ClipSampling(size=16), batch_size=5, workers=1)
    import threading
    threading.Thread(target=lambda: next(iter(mixture.epoch(0))), daemon=True).start()
    while not mixture.worker_pids:
        threading.Event().wait(0.05)
    print(mixture.worker_pids[0], flush=True)
    threading.Event().wait()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes to make a file that never ends")
def test_a_decoder_that_hangs_does_not_outlive_a_training_that_was_killed(spoilt: Corpus, tmp_path: Path) -> None:
    hang(spoilt.root / "2.png")
    (tmp_path / "orphans.py").write_text(ORPHANS)
    command = [sys.executable, tmp_path / "orphans.py", spoilt.annotation, spoilt.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        pid = int(training.stdout.readline())
        assert is_running(pid)
        training.kill()
    for _ in range(100):
        if not is_running(pid):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} still runs")


# What cannot be begun


def test_what_does_not_fill_a_batch_is_told(corpora: list[Corpus]) -> None:
    with pytest.raises(TrainingDataError, match="5 text samples do not fill one batch of 3 x 2 processes"):
        Mixture(corpora, AUGMENTED, batch_size=3, world_size=2)
    with pytest.raises(TrainingDataError, match="nothing to train on"):
        Mixture([], AUGMENTED, batch_size=3)
    with pytest.raises(TrainingDataError, match="batch size of text must be at least 1, got None"):
        Mixture(corpora, AUGMENTED, batch_size={"video": 1, "image": 1})
    with pytest.raises(ValueError, match=r"rank must be one of 0 \.\. 1, got 2"):
        Mixture(corpora, AUGMENTED, batch_size=1, rank=2, world_size=2)
