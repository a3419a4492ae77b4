"""The catalog of a library: one SQLite file that is the truth about its videos, segments, vectors and words."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import LibraryError
from videochat_tools.library.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION
from videochat_tools.retrievers.temporal import SpokenMatch
from videochat_tools.types import Segment, TimeSpan, Transcript, Utterance, VideoInfo, VideoRecord

__all__ = ["Catalog", "NewVideo"]

logger = logging.getLogger(__name__)

BUSY_SECONDS = 15.0  # how long a statement waits for another process; a whole video is written within a second
MIN_OVERLAP = 0.05  # seconds that must lie inside a window: less is the rounding of a cut


@dataclass(frozen=True, slots=True)
class NewVideo:
    """Everything about one video, to be written in one transaction."""

    video_id: str
    path: Path
    info: VideoInfo
    spans: Sequence[TimeSpan]
    transcript: Transcript
    fingerprint: str
    vectors: npt.NDArray[np.float32]  # [segments, rows, dimension]


class Catalog:
    """An open catalog. Safe to share between threads; other processes may read and write the same file."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open or create the file.

        Raises:
            LibraryError: it is no catalog, was written by another version, or cannot be opened.
        """
        self.path = path
        self._lock = threading.RLock()
        with self._errors():
            mode = "rwc" if create else "rw"
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS,
                isolation_level=None, check_same_thread=False,
            )  # fmt: skip
        try:
            with self._errors():
                self._prepare(create)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, create: bool) -> None:
        run = self._connection.execute
        run("PRAGMA foreign_keys = ON")
        run("PRAGMA secure_delete = ON")  # what was removed is overwritten, not only forgotten
        if create and not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            run("PRAGMA journal_mode = WAL")
            with self._transaction():
                if not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:  # another process may have been faster
                    run(f"PRAGMA application_id = {APPLICATION_ID}")
                    run(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    for statement in _statements(SCHEMA):
                        run(statement)
        if run("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise LibraryError(f"{self.path} is no catalog of this package; give the folder of a library, or a new one")
        version = run("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise LibraryError(
                f"{self.path} has schema {version}, this version of videochat-tools reads schema {SCHEMA_VERSION}; "
                + ("update videochat-tools" if version > SCHEMA_VERSION else "add the videos to a new library")
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            reason = "another process is writing to it; try again later" if "locked" in str(error) else str(error)
            raise LibraryError(f"the catalog {self.path} cannot be used: {reason}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; other writers wait."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock, self._errors():
            return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        """Close the file; the catalog cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    @property
    def generation(self) -> int:
        """Grows with every change of the embeddings, by whatever process."""
        return int(self._rows("SELECT value FROM meta WHERE name = 'generation'")[0][0])

    # ------------------------------------------------------------------------------------------------------- videos

    def videos(self) -> list[VideoRecord]:
        """All videos by name."""
        return [_record(row) for row in self._rows(f"{_RECORDS} ORDER BY v.name, v.id")]

    def video(self, video_id: str) -> VideoRecord | None:
        """One video, if it is here."""
        rows = self._rows(f"{_RECORDS} WHERE v.id = ?", video_id)
        return _record(rows[0]) if rows else None

    def add_video(self, video: NewVideo, *, replaces: Collection[str] = ()) -> None:
        """Write a video with all its parts, and remove those that it replaces, in one transaction."""
        info = {**asdict(video.info), "path": str(video.path)}
        with self._transaction():
            run = self._connection.execute
            for old in replaces:
                run("DELETE FROM videos WHERE id = ?", (old,))
            run(
                "INSERT INTO videos VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    video.video_id, video.path.name, str(video.path), json.dumps(info), video.transcript.source,
                    video.transcript.language, datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )  # fmt: skip
            self._connection.executemany(
                'INSERT INTO segments (video_id, number, start, "end") VALUES (?, ?, ?, ?)',
                ((video.video_id, number, span.start, span.end) for number, span in enumerate(video.spans)),
            )
            self._connection.executemany(
                'INSERT INTO utterances (video_id, number, start, "end", text) VALUES (?, ?, ?, ?, ?)',
                (
                    (video.video_id, number, item.span.start, item.span.end, item.text)
                    for number, item in enumerate(video.transcript.utterances)
                ),
            )
            self._insert_vectors(video.video_id, video.fingerprint, video.vectors)

    def add_vectors(self, video_id: str, fingerprint: str, vectors: npt.NDArray[np.float32]) -> None:
        """Write the vectors [segments, rows, dimension] of a further encoder for a video that is here."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM embeddings WHERE fingerprint = ? "
                "AND segment_id IN (SELECT id FROM segments WHERE video_id = ?)",
                (fingerprint, video_id),
            )
            self._insert_vectors(video_id, fingerprint, vectors)

    def _insert_vectors(self, video_id: str, fingerprint: str, vectors: npt.NDArray[np.float32]) -> None:
        ids = self._rows("SELECT id FROM segments WHERE video_id = ? ORDER BY number", video_id)
        self._connection.executemany(
            "INSERT INTO embeddings (segment_id, fingerprint, vector) VALUES (?, ?, ?)",
            (
                (id, fingerprint, np.ascontiguousarray(rows, "<f4").tobytes())
                for (id,), rows in zip(ids, vectors, strict=True)
            ),
        )
        self._bump()

    def _bump(self) -> None:
        self._connection.execute("UPDATE meta SET value = value + 1 WHERE name = 'generation'")

    def move_video(self, video_id: str, path: Path) -> None:
        """The file of a video lies elsewhere now."""
        with self._transaction():
            self._connection.execute(
                "UPDATE videos SET path = ?, name = ?, info = json_set(info, '$.path', ?) WHERE id = ?",
                (str(path), path.name, str(path), video_id),
            )

    def remove_video(self, video_id: str) -> None:
        """Delete a video with all its rows, and overwrite the places where they stood."""
        with self._transaction():
            self._connection.execute("DELETE FROM videos WHERE id = ?", (video_id,))
            self._bump()
            # Deleted words stay in the full-text index until its parts are merged.
            self._connection.execute("INSERT INTO spoken (spoken) VALUES ('optimize')")
        # The log still holds the old pages until it is written back and cut off (not while others read it).
        self._rows("PRAGMA wal_checkpoint(TRUNCATE)")

    # ------------------------------------------------------------------------------------------- segments, vectors

    def segments(self, video_id: str, span: TimeSpan | None = None) -> list[Segment]:
        """The segments of one video, or those that overlap a span, in order of time."""
        where, values = _filter("x", (video_id,), span)
        query = f'SELECT video_id, number, start, "end" FROM segments x WHERE {where} ORDER BY number'
        rows = self._rows(query, *values)
        return [_segment(*row) for row in rows]

    def not_embedded(self, fingerprint: str) -> dict[str, str]:
        """Ids and names of the videos that lack vectors of this encoder."""
        return dict(
            self._rows(
                "SELECT DISTINCT v.id, v.name FROM segments x JOIN videos v ON v.id = x.video_id WHERE NOT EXISTS "
                "(SELECT 1 FROM embeddings e WHERE e.segment_id = x.id AND e.fingerprint = ?) ORDER BY v.name",
                fingerprint,
            )  # type: ignore[arg-type]
        )

    def vector_ids(
        self, fingerprint: str | None, videos: Collection[str] | None = None, span: TimeSpan | None = None
    ) -> npt.NDArray[np.int64]:
        """Ids of the vectors of one encoder (or all), ascending, of some videos and of segments that overlap a span."""
        where, values = _filter("x", videos, span)
        rows = self._rows(
            "SELECT e.id FROM embeddings e JOIN segments x ON x.id = e.segment_id "
            f"WHERE (? IS NULL OR e.fingerprint = ?) AND {where} ORDER BY e.id", fingerprint, fingerprint, *values,
        )  # fmt: skip
        return np.array([id for (id,) in rows], np.int64)

    def vectors(self, ids: npt.NDArray[np.int64], rows: int, dimension: int) -> npt.NDArray[np.float32]:
        """The vectors with these ids, [n, rows, dimension]; LibraryError when one is missing or of another length."""
        found: dict[int, bytes] = dict(
            self._rows(
                "SELECT id, vector FROM embeddings WHERE id IN (SELECT value FROM json_each(?))",
                json.dumps(ids.tolist()),
            )
        )
        if len(found) != len(ids):
            raise LibraryError(f"the catalog {self.path} changed while it was read, or is damaged; try again")
        size = rows * dimension * 4
        for blob in found.values():
            if len(blob) != size:
                raise LibraryError(
                    f"the catalog {self.path} holds {len(blob)} bytes for a segment where this video encoder has "
                    f"{rows} x {dimension} numbers ({size} bytes): another encoder wrote them; open the library with "
                    "that one, or add the videos to a new library"
                )
        numbers = np.frombuffer(b"".join(found[id] for id in ids.tolist()), "<f4")
        return numbers.astype(np.float32, copy=False).reshape(len(ids), rows, dimension)

    def segments_of(self, ids: Sequence[int]) -> dict[int, Segment]:
        """The segment that each vector belongs to."""
        rows = self._rows(
            'SELECT e.id, x.video_id, x.number, x.start, x."end" FROM embeddings e JOIN segments x '
            "ON x.id = e.segment_id WHERE e.id IN (SELECT value FROM json_each(?))",
            json.dumps([int(id) for id in ids]),
        )
        return {row[0]: _segment(*row[1:]) for row in rows}

    # ------------------------------------------------------------------------------------------------------- speech

    def utterances(self, video_id: str, span: TimeSpan | None = None) -> list[Utterance]:
        """What is said in one video, or during a span of it, in order of time."""
        where, values = _filter("x", (video_id,), span)
        rows = self._rows(f'SELECT start, "end", text FROM utterances x WHERE {where} ORDER BY number', *values)
        return [Utterance(TimeSpan(start, end), text) for start, end, text in rows]

    def spoken(
        self, words: Sequence[str], k: int, videos: Collection[str] | None, span: TimeSpan | None
    ) -> tuple[list[SpokenMatch], dict[str, float]]:
        """The ``k`` best utterances with any of the words, and the weight of each word: its rarity."""
        terms = {word: '"' + word.replace('"', '""') + '"' for word in words}  # quoted, so that nothing is an operator
        where, values = _filter("x", videos, span)
        found = self._rows(
            'SELECT x.id, x.video_id, x.number, x.start, x."end", -bm25(spoken) FROM spoken '
            f"JOIN utterances x ON x.id = spoken.rowid WHERE spoken MATCH ? AND {where} ORDER BY bm25(spoken) LIMIT ?",
            " OR ".join(terms.values()), *values, k,
        ) if terms else []  # fmt: skip
        ids = json.dumps([row[0] for row in found])
        total = self._rows("SELECT count(*) FROM utterances")[0][0]
        weights: dict[str, float] = {}
        said: dict[int, set[str]] = {row[0]: set() for row in found}
        for word, term in terms.items():
            count = self._rows("SELECT count(*) FROM spoken WHERE spoken MATCH ?", term)[0][0]
            weights[word] = math.log(1 + (total - count + 0.5) / (count + 0.5))
            for (id,) in self._rows(
                "SELECT rowid FROM spoken WHERE spoken MATCH ? AND rowid IN (SELECT value FROM json_each(?))", term, ids
            ):
                said[id].add(word)
        matches = [
            SpokenMatch(video_id, number, TimeSpan(start, end), frozenset(said[id]), max(0.0, score))
            for id, video_id, number, start, end, score in found
        ]
        return matches, weights


_RECORDS = """
SELECT v.id, v.name, v.path, v.info, v.transcript_source,
    (SELECT count(*) FROM segments s WHERE s.video_id = v.id),
    (SELECT count(*) FROM utterances u WHERE u.video_id = v.id)
FROM videos v"""


def _record(row: tuple[Any, ...]) -> VideoRecord:
    video_id, name, path, info, source, segments, utterances = row
    fields = json.loads(info)
    known = VideoInfo(
        **{**fields, "path": Path(fields["path"]), "subtitle_codecs": tuple(fields.get("subtitle_codecs", ()))}
    )
    return VideoRecord(video_id, name, Path(path), known, segments, utterances, source)


def _segment(video_id: str, number: int, start: float, end: float) -> Segment:
    return Segment(video_id, number, TimeSpan(start, end))


def _filter(table: str, videos: Collection[str] | None, span: TimeSpan | None) -> tuple[str, list[Any]]:
    """A condition on rows with video_id, start and end, and its values."""
    conditions: list[str] = ["1"]
    values: list[Any] = []
    if videos is not None:
        conditions.append(f"{table}.video_id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(sorted(videos)))
    if span is not None:
        # A piece or a window that is shorter than the least overlap need only lie inside the other.
        conditions.append(f'min({table}."end", ?) - max({table}.start, ?) >= min(?, ?, {table}."end" - {table}.start)')
        values += [span.end, span.start, MIN_OVERLAP, span.duration]
    return " AND ".join(conditions), values


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: executescript() would commit the transaction around it."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
