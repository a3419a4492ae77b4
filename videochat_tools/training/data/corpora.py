"""Which annotation files a training run reads, and where their media lie."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from videochat_tools.errors import TrainingDataError

__all__ = ["FOLDER_FPS", "MEDIA", "Corpus", "Medium", "read_corpora"]

Medium = Literal["image", "video", "text"]

MEDIA: tuple[Medium, ...] = get_args(Medium)

FOLDER_FPS = 3.0  # pictures a second of the frame folders that the released lists name (TVQA, also in MVBench)
_KINDS: dict[str, tuple[type, ...]] = {
    "annotation": (str,),
    "root": (str,),
    "medium": (str,),
    "name": (str,),
    "folder_fps": (int, float),
    "shuffle_turns": (bool,),
}


@dataclass(frozen=True, slots=True)
class Corpus:
    """One annotation file and where its media lie.

    Attributes:
        annotation: A JSON list, or one JSON object a line (``.jsonl``).
        root: What the paths in it are relative to.
        medium: What all its samples show; a batch shows one medium only.
        name: In reports; empty takes the annotation's path.
        folder_fps: Pictures a second where a "video" is a folder of numbered pictures.
        shuffle_turns: Show the turns of a conversation in another order each time, as the released recipes do. False
            for dialogues in which one question builds on another.
    """

    annotation: Path
    root: Path
    medium: Medium = "image"
    name: str = ""
    folder_fps: float = FOLDER_FPS
    shuffle_turns: bool = True

    def __post_init__(self) -> None:
        if self.medium not in MEDIA:
            raise TrainingDataError(f"the medium of a corpus is one of {', '.join(MEDIA)}, got {self.medium!r}")
        if not 0 < self.folder_fps < float("inf"):
            raise TrainingDataError(f"folder_fps is a positive number of pictures a second, got {self.folder_fps!r}")
        object.__setattr__(self, "annotation", Path(self.annotation))
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "name", self.name or str(self.annotation))

    @classmethod
    def from_config(cls, entry: Mapping[str, Any] | Sequence[Any], base: str | Path = ".") -> Corpus:
        """A corpus as a configuration writes it.

        Args:
            entry: The released form ``[annotation, data root, optional "video" or "text", optional "img"]``, or a table
                with ``annotation`` and the other fields of this class.
            base: Folder that relative paths are relative to.

        Raises:
            TrainingDataError: Neither of the two.
        """
        fields = dict(entry) if isinstance(entry, Mapping) else _released_fields(entry)
        if "annotation" not in fields or fields.keys() - _KINDS.keys():
            raise TrainingDataError(
                f"a corpus has the keys {', '.join(_KINDS)}, of which annotation is needed, got {fields!r}"
            )
        for key, value in fields.items():
            if not isinstance(value, _KINDS[key]) or (isinstance(value, bool) and bool not in _KINDS[key]):
                raise TrainingDataError(f"{key!r} of a corpus cannot be {value!r} (corpus {fields['annotation']!r})")
        folder = Path(base)
        return cls(**{**fields, "annotation": folder / fields["annotation"], "root": folder / fields.get("root", "")})


def _released_fields(entry: Sequence[Any]) -> dict[str, Any]:
    """``[annotation, root, "video" or "text", "img"]`` as a table."""
    parts = list(entry) if isinstance(entry, list | tuple) else []
    if not 2 <= len(parts) <= 4 or not all(isinstance(part, str) for part in parts):
        raise TrainingDataError(
            'a corpus in the released form is [annotation, data root, optional "video" or "text", optional "img"], '
            f"got {entry!r}"
        )
    medium = parts[2] if len(parts) > 2 else "image"
    if len(parts) == 4 and (parts[3] not in ("img", "video") or medium != "video"):
        raise TrainingDataError(f'only a corpus of videos has a reader, and it is "img" (frame folders), got {entry!r}')
    # "img" tells the released reader to expect folders; here a path that is a folder is seen to be one.
    return {"annotation": parts[0], "root": parts[1], "medium": medium}


def read_corpora(path: str | Path) -> list[Corpus]:
    """The corpora that a file lists: TOML, YAML or JSON with a list ``corpora``, or that list alone.

    Relative paths in it are relative to its folder.

    Raises:
        TrainingDataError: It cannot be read, or lists none.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = _parse(path, text)
    except OSError as error:
        raise TrainingDataError(f"{path} cannot be read ({error.strerror or error}); check the name") from error
    except ValueError as error:  # of every parser, and of the decoder
        reason = " ".join(str(error).split())
        raise TrainingDataError(f"{path} is no {path.suffix.lstrip('.').upper()} file: {reason}") from error
    entries = content.get("corpora") if isinstance(content, Mapping) else content
    if not isinstance(entries, list) or not entries:
        raise TrainingDataError(f"{path} lists no corpora; write a list 'corpora' with an annotation and a root each")
    corpora = []
    for number, entry in enumerate(entries, 1):
        try:
            corpora.append(Corpus.from_config(entry, path.parent))
        except TrainingDataError as error:
            raise TrainingDataError(f"{path}, corpus {number}: {error}") from None
    return corpora


def _parse(path: Path, text: str) -> Any:
    if path.suffix == ".toml":
        return tomllib.loads(text)
    if path.suffix in (".yaml", ".yml"):
        import yaml  # comes with transformers

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(str(error)) from error
    return json.loads(text)
