"""Runs a benchmark: a log with a line an item, which a stopped run goes on from, and the results at the end.

::

    output/
      run.json      what is measured: benchmark, settings, models, control
      items.jsonl   one line an item, written as soon as it is measured; the last line of an item counts
      result.md     tables
      result.json   the same, and the counts
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from videochat_tools._version import __version__
from videochat_tools.errors import BenchmarkError, ContextTooLongError, MediaError
from videochat_tools.evaluation.benchmarks.base import ANSWERED, MISSING, Benchmark, Context, Item, Record, Sections
from videochat_tools.evaluation.benchmarks.models import Models
from videochat_tools.evaluation.statistics import markdown_table, to_json

__all__ = ["RunResult", "check_control", "run_benchmark", "spread"]

logger = logging.getLogger(__name__)

HEADER, LOG, TABLE, RESULT = "run.json", "items.jsonl", "result.md", "result.json"
UNREADABLE, TOO_LONG = "unreadable", "too long"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run found.

    Attributes:
        header: What was measured.
        sections: Scores.
        counts: Items by status.
        absent: Videos that are not on this machine.
        failed: What went wrong with items whose video cannot be read, or which do not fit the model, by their ids.
        facts: Further figures.
    """

    header: dict[str, Any]
    sections: Sections
    counts: dict[str, int]
    absent: tuple[str, ...]
    failed: dict[str, str]
    facts: dict[str, Any]

    @property
    def markdown(self) -> str:
        """All as Markdown."""
        head = ", ".join(f"{name} {value}" for name, value in self.header.items() if name not in ("settings", "items"))
        parts = [f"# {self.header['benchmark']}", head, _told(self.counts, self.absent)]
        parts += [f"{name}: {value}" for name, value in self.facts.items()]
        parts += [f"## {section}\n\n{markdown_table(scores)}" for section, scores in self.sections.items()]
        return "\n\n".join(parts) + "\n"

    @property
    def json(self) -> str:
        """All as JSON."""
        unanswered = {"absent_videos": list(self.absent), "failed_items": self.failed}
        facts = {**self.facts, "counts": self.counts, **unanswered}
        return to_json(self.sections, **self.header, **facts)


def run_benchmark(
    benchmark: Benchmark[Any],
    output: str | Path,
    models: Models | None = None,
    *,
    limit: int | None = None,
    control: str = "none",
    cache: str | Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> RunResult:
    """Measure every item that the log does not hold yet, then score.

    Items whose video is missing or damaged are logged as such, count as wrong, and are tried again by the next run.

    Args:
        benchmark: What to measure.
        output: Folder of log and results; made if need be. A run with other settings there is an error.
        models: Those to ask; default is the bundled nano.
        limit: Only so many items, spread evenly over all. A later run with more goes on from these.
        control: "none", or what the model is shown in place of what the benchmark shows it.
        cache: Folder of files that do not depend on the run, such as vectors of a haystack, so that another run has
            them too; default is ``cache`` in the output.
        progress: Called with the number of items done and of all.

    Raises:
        BenchmarkError: The control makes no sense here, or the folder holds another run or a damaged log.
    """
    check_control(benchmark, control)
    models, folder = models or Models(), Path(output)
    chosen = spread(benchmark.items, limit)
    header = _header(benchmark, models, control)
    _claim(folder, header)
    records = _read_log(folder / LOG)
    context = Context(models, control, folder, None if cache is None else Path(cache))
    benchmark.prepare(context)
    with _log(folder / LOG) as write:
        for number, item in enumerate(chosen):
            if records.get(item.id, {}).get("status") not in (ANSWERED, TOO_LONG):
                records[item.id] = _measure(benchmark, item, context)
                write(records[item.id])
            if progress is not None:
                progress(number + 1, len(chosen))
    wanted = {item.id: records[item.id] for item in chosen}
    counts = Counter(str(record["status"]) for record in wanted.values())
    absent = tuple(sorted({item.video for item in chosen if wanted[item.id]["status"] == MISSING}))
    result = RunResult(
        {**header, "items": len(chosen)},
        benchmark.score(chosen, wanted),
        dict(counts),
        absent,
        {item.id: str(wanted[item.id]["error"]) for item in chosen if "error" in wanted[item.id]},
        benchmark.facts(chosen, wanted),
    )
    benchmark.finish(chosen, wanted, folder)
    _write(folder / TABLE, result.markdown)
    _write(folder / RESULT, result.json + "\n")
    return result


def spread(items: Sequence[Any], limit: int | None) -> list[Any]:
    """``limit`` of the items, evenly spread; all of them without one."""
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise BenchmarkError(f"a limit must be at least 1 item, got {limit}")
    return [items[number * len(items) // limit] for number in range(limit)]


def check_control(benchmark: Benchmark[Any] | type[Benchmark[Any]], control: str) -> None:
    """Raise BenchmarkError, with the reason, where a control makes no sense for a benchmark."""
    if control == "none" or control in benchmark.controls:
        return
    allowed = ", ".join(("none", *benchmark.controls))
    reason = f": {benchmark.senseless[control]}" if control in benchmark.senseless else ""
    raise BenchmarkError(f"{benchmark.name} has no control {control!r}{reason}; choose one of {allowed}")


def _measure(benchmark: Benchmark[Any], item: Item, context: Context) -> Record:
    began = time.perf_counter()
    status: Record
    if benchmark.looks(context.control) and not benchmark.is_there(item):
        status = {"status": MISSING}
    else:
        try:
            status = {"status": ANSWERED, **benchmark.measure(item, context)}
        except MediaError as error:
            logger.warning("%s: %s", item.id, error)
            status = {"status": UNREADABLE, "error": str(error)}
        except ContextTooLongError as error:
            status = {"status": TOO_LONG, "error": str(error)}
    return {"id": item.id, "video": item.video, **status, "took": round(time.perf_counter() - began, 3)}


def _header(benchmark: Benchmark[Any], models: Models, control: str) -> dict[str, Any]:
    digest = hashlib.sha256("\n".join(map(repr, benchmark.identity)).encode())
    header: dict[str, Any] = {
        "benchmark": benchmark.name,
        "control": control,
        "annotations": digest.hexdigest()[:16],
        "settings": benchmark.settings,
        "version": __version__,
    }
    if "chat" in benchmark.uses:
        header |= models.chat.identity
    if "encoder" in benchmark.uses:
        header["encoder"] = models.encoder.fingerprint
    return header


def _claim(folder: Path, header: dict[str, Any]) -> None:
    """Write down what is measured; or check that the same was, where an earlier run is gone on with."""
    path = folder / HEADER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            _write(path, json.dumps(header, indent=1) + "\n")
            return
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"cannot use {folder} for results ({error}); give another folder") from error
    differing = [name for name in sorted({*earlier, *header} - {"version"}) if earlier.get(name) != header.get(name)]
    if differing:
        told = ", ".join(f"{name} {earlier.get(name)!r} instead of {header.get(name)!r}" for name in differing)
        raise BenchmarkError(f"{folder} holds another run ({told}); give another folder or remove that one")


def _read_log(path: Path) -> dict[str, Record]:
    """The last record of each item. A half line at the end, of a run that was killed while writing, is cut off."""
    if not path.is_file():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    records = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            record = json.loads(line)
            records[record["id"]] = record
        except (ValueError, TypeError, KeyError) as error:
            raise BenchmarkError(f"{path}, line {number} is damaged ({error}); remove the line to go on") from error
    return records


@contextmanager
def _log(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    with path.open("ab") as file:
        yield lambda record: _append(file, record)


def _append(file: IO[bytes], record: Mapping[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    file.flush()


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _told(counts: Mapping[str, int], absent: Sequence[str]) -> str:
    """How many items there are of each kind, in words."""
    said = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    if set(counts) - {ANSWERED}:
        said += "; what is not answered counts as wrong"
    if absent:
        said += f"; {len(absent)} videos are missing, such as {absent[0]}"
    return said
