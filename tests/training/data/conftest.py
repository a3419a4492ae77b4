"""Small corpora with real media: every frame carries its number, every answer its video."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rendering import barcode, read_barcode, render_numbered
from torch import Tensor

from videochat_tools.cli import main
from videochat_tools.models.videochat2.image_processing import IMAGENET_MEAN, IMAGENET_STD
from videochat_tools.training.data import ClipSampling, Corpus

SIDE = 48  # pixels of the square frames


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sampling() -> ClipSampling:
    """Frames as they are, so that their numbers can be read."""
    return ClipSampling(num_frames=4, size=SIDE, augment=False)


@pytest.fixture(scope="session")
def numbers() -> Callable[[Tensor], list[int]]:
    """The numbers that the frames of a clip [T, 3, H, W] carry."""

    def read(pixels: Tensor) -> list[int]:
        mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_MEAN, IMAGENET_STD))
        images = ((pixels * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        return [read_barcode(image) for image in images]

    return read


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``videos/0.mp4`` to ``7.mp4`` of 20 to 27 frames, 10 a second, and ``images/0.png`` to ``5.png``; read only."""
    root = tmp_path_factory.mktemp("media")
    for name in ("videos", "images"):
        (root / name).mkdir()
    for number in range(8):
        render_numbered(root / "videos" / f"{number}.mp4", 20 + number, (SIDE, SIDE), fps=10)
    for number in range(6):
        Image.fromarray(barcode(number, (SIDE, SIDE))).save(root / "images" / f"{number}.png")
    return root


def write_entries(path: Path, entries: Sequence[Any]) -> Path:
    """A JSON list, or one entry a line."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    else:
        path.write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def write() -> Callable[[Path, Sequence[Any]], Path]:
    """``write(path, entries)``: an annotation file."""
    return write_entries


@pytest.fixture
def corpora(media: Path, tmp_path: Path) -> list[Corpus]:
    """Eight conversations about videos, six captions of images, five texts."""
    talks = [
        {"video": f"{n}.mp4", "QA": [{"i": "Answer.", "q": f"question {t}", "a": f"{n}.{t}"} for t in range(3)]}
        for n in range(8)
    ]
    captions = [{"image": f"{number}.png", "caption": f"picture {number}"} for number in range(6)]
    texts = [{"QA": [{"q": f"text {number}", "a": "yes"}]} for number in range(5)]
    return [
        Corpus(write_entries(tmp_path / "talks.json", talks), media / "videos", "video"),
        Corpus(write_entries(tmp_path / "captions.jsonl", captions), media / "images", "image"),
        Corpus(write_entries(tmp_path / "texts.jsonl", texts), tmp_path, "text"),
    ]


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``data("check", file)``: exit code, stdout and stderr of ``videochat data``, run in this process."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(["data", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def frame_folder(tmp_path: Path) -> Callable[..., Path]:
    """``frame_folder(numbers, pattern="{:05d}.png")``: a folder of pictures that carry their file's number."""

    def make(numbers: Sequence[int], pattern: str = "{:05d}.png") -> Path:
        folder = tmp_path / "frames"
        folder.mkdir()
        for number in numbers:
            Image.fromarray(np.ascontiguousarray(barcode(number, (SIDE, SIDE)))).save(folder / pattern.format(number))
        return folder

    return make
