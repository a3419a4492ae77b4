"""What every test shares: no network, no model hub, the optional folder of real footage, small rendered videos."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

# Before anything imports huggingface_hub: a test that looks for a model online is a test that fails elsewhere.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import numpy.typing as npt
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """Weights that a test draws without saying how are the same in every run, whatever ran before."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real footage and reference goldens; tests that need it are skipped without it."""
    folder = Path(os.environ.get("VIDEOCHAT_SHARED") or REPOSITORY.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}; set VIDEOCHAT_SHARED to run the tests on real footage")
    return folder


Pictures = Iterable[npt.NDArray[np.uint8]]


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """``write_video(path, pictures, fps=10)``: an H.264 file of RGB pictures [height, width, 3], n-th at n / fps."""

    def write(path: Path, pictures: Pictures, fps: int = 10) -> Path:
        import av

        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "veryfast"})
            stream.pix_fmt = "yuv420p"
            stream.time_base = Fraction(1, fps)
            for number, picture in enumerate(pictures):
                if number == 0:
                    stream.height, stream.width = picture.shape[:2]
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    return write


@pytest.fixture
def color_video(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """``colours.mp4``, 96x64: two seconds each of plain red, green and blue, with hard cuts between them."""
    colors = ((220, 30, 30), (30, 200, 40), (40, 60, 220))
    pictures = (np.full((64, 96, 3), color, np.uint8) for color in colors for _ in range(20))
    return write_video(tmp_path / "colours.mp4", pictures, fps=10)


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    """A folder with ``colours.mp4``, ``more.mp4`` and a library of them that needs no networks; to be copied, or read.

    ``small_library.open_small_library`` opens it.
    """
    from small_library import make_small_library

    from videochat_tools.testing import FakeClipWatcher

    folder = tmp_path_factory.mktemp("colours")
    make_small_library(folder, write_video, watcher=FakeClipWatcher()).close()
    return folder
