"""Public benchmarks: one small class each, on the file format that its makers publish.

A benchmark reads its annotation files, asks the models about one item at a time (:mod:`.runner` keeps a log that a
stopped run goes on from), and turns the log into scores. No benchmark's data comes with this package.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videochat_tools.errors import BenchmarkError

if TYPE_CHECKING:
    from videochat_tools.evaluation.benchmarks.base import Benchmark

__all__ = ["BENCHMARKS", "RENDERED", "benchmark_class", "load_benchmark"]

_HERE = "videochat_tools.evaluation.benchmarks"

# Name: module, class and fixed arguments. Modules are imported when a benchmark is loaded.
_KNOWN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mvbench": ("mvbench", "MVBench", {}),
    "video-mme": ("video_mme", "VideoMME", {}),
    "video-mme-subtitles": ("video_mme", "VideoMME", {"subtitles": True}),
    "egoschema": ("egoschema", "EgoSchema", {}),
    "egoschema-full": ("egoschema", "EgoSchema", {"full": True}),
    "longvideobench": ("longvideobench", "LongVideoBench", {}),
    "longvideobench-subtitles": ("longvideobench", "LongVideoBench", {"subtitles": True}),
    "lvbench": ("lvbench", "LVBench", {}),
    "next-qa": ("next_qa", "NExTQA", {}),
    "star": ("star", "STAR", {}),
    "qvhighlights": ("qvhighlights", "QVHighlights", {}),
    "charades-sta": ("charades_sta", "CharadesSTA", {}),
    "charades-sta-prompt": ("charades_sta", "CharadesSTAPrompt", {}),
    "msrvtt": ("msrvtt", "MSRVTT", {}),
    "citations": ("citations", "Citations", {}),
    "needle": ("needle", "NeedleInHaystack", {}),
    "needle-near": ("needle", "NeedleInHaystack", {"near": True}),
}

BENCHMARKS = tuple(_KNOWN)
"""Names of all benchmarks."""

RENDERED = ("needle", "needle-near")
"""Those that render their videos themselves, and need no files."""


def benchmark_class(name: str) -> type[Benchmark[Any]]:
    """The class of a benchmark, which says what it asks and which controls make sense for it.

    Raises:
        BenchmarkError: No such benchmark.
    """
    if name not in _KNOWN:
        raise BenchmarkError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    module, kind, _ = _KNOWN[name]
    found: type[Benchmark[Any]] = getattr(import_module(f"{_HERE}.{module}"), kind)
    return found


def load_benchmark(name: str, data: str | Path | None = None, **options: Any) -> Benchmark[Any]:
    """The benchmark of this name on the files in a folder.

    Args:
        name: One of :data:`BENCHMARKS`.
        data: The folder as its makers publish it; ``docs/evaluation.md`` shows the layout of each. Those of
            :data:`RENDERED` need none.
        **options: Those of the class, such as ``tasks`` of MVBench and ``hours`` of the needle in a haystack.

    Raises:
        BenchmarkError: No such benchmark, or its files are missing or malformed.
    """
    kind, fixed = benchmark_class(name), _KNOWN[name][2]
    if data is None and name not in RENDERED:
        raise BenchmarkError(f"{name} needs its files; give the folder that holds them")
    make: Callable[..., Benchmark[Any]] = kind
    return make(None if data is None else Path(data), **fixed, **options)
