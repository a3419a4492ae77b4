"""How long the sample video takes to render, and how much memory: ``python benchmarks/sample_video.py [MINUTES]``."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from videochat_tools.training.world.sample import render_sample


def main() -> None:
    """Render once and print seconds, speed, megabytes on disk and the peak of memory."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path = render_sample(Path(folder) / "sample.mp4", minutes)
        seconds = time.perf_counter() - began
        size = path.stat().st_size / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in kilobytes
    print(
        f"{minutes:g} min in {seconds:.1f} s, {60 * minutes / seconds:.0f} x real time; "
        f"{size:.1f} MB on disk, {peak:.0f} MB of memory at most"
    )


if __name__ == "__main__":
    main()
