"""The time that ``import videochat_tools`` takes in a fresh interpreter: ``python benchmarks/import_time.py``."""

from __future__ import annotations

import statistics
import subprocess
import sys

PROBE = """
import sys, time
before = set(sys.modules)
began = time.perf_counter()
import videochat_tools
print(time.perf_counter() - began, len(set(sys.modules) - before), "torch" in sys.modules)
"""


def main(repeats: int = 9) -> None:
    """Print the median and the range over fresh interpreters."""
    runs = []
    for _ in range(repeats):
        run = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, text=True)
        runs.append(run.stdout.split())
    seconds = sorted(float(run[0]) for run in runs)
    print(
        f"import videochat_tools: median {statistics.median(seconds) * 1000:.1f} ms "
        f"({seconds[0] * 1000:.1f} to {seconds[-1] * 1000:.1f} ms, {repeats} runs), "
        f"{runs[0][1]} modules, torch loaded: {runs[0][2]}"
    )


if __name__ == "__main__":
    main()
