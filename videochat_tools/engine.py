"""A chat model on disk, ready to watch clips and to reply. Weights are loaded when first needed, once a process.

Knows no LangChain. The networks themselves are run by :mod:`videochat_tools.generation`, which is imported with the
first use, so that opening a library or making a chat model costs neither memory nor time.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import ModelLoadError, UnsupportedContentError

if TYPE_CHECKING:
    from videochat_tools.content import Turn, Visual
    from videochat_tools.generation import ChatNetwork
    from videochat_tools.reply import Reply
    from videochat_tools.tool_calling import ReplyForm

ClipTokens = npt.NDArray[np.float16]
"""[queries, width]: the Q-Former's output rows for one clip, all that a reply needs of it; an HD clip has
[views * queries, width], those of its tiles and of the whole frames."""
ClipSource = Callable[[str], ClipTokens]
"""Gives the cached clip tokens of a library segment by its name."""

Watched = tuple[ClipTokens, tuple[float, ...]]
"""Clip tokens, and the seconds at which the frames stand in their video."""

BUNDLED = Path(__file__).parent / "models" / "nano" / "chat"
GROUNDING_FILE = "grounding.json"  # the fields of Grounding
MAX_WATCHED = 64  # clips whose tokens stay at hand; 96 rows of width 768 are 0.15 MB


@dataclass(frozen=True, slots=True)
class Grounding:
    """How a model was trained to be asked, from ``grounding.json`` in its folder.

    Attributes:
        max_clips: how many clips it compares in one question.
        frame_times: captions of library clips tell it where the parts begin that their frames are from.
        brief_tools: it is told signatures of tools, even where there is room for their schemas.
    """

    max_clips: int = 4
    frame_times: bool = False
    brief_tools: bool = False


@dataclass(frozen=True, slots=True)
class ReplySettings:
    """How a reply is made.

    Attributes:
        max_tokens: longest reply.
        temperature: 0 is greedy; ``seed`` and ``top_p`` matter only above it.
        top_p: draw only from the likeliest tokens that together have this probability.
        seed: makes what is drawn reproducible.
        stop: the reply ends before the first of these strings.
        answer_start: first words of the reply, which the model goes on from.
        reuse: take over what was run for earlier turns, and keep this one for later ones.
        form: what the reply may be, a call of a tool for one; None leaves it to the model.

    Raises:
        ValueError: a number is of another kind or out of its bounds, or a stop sequence is empty.
    """

    max_tokens: int = 200
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    answer_start: str | None = None
    reuse: bool = True
    form: ReplyForm | None = None

    def __post_init__(self) -> None:
        self._check("max_tokens", "a whole number of at least 1", Integral, lambda value: value >= 1)
        self._check("temperature", "a number of at least 0", Real, lambda value: 0 <= value < inf)
        self._check("top_p", "a number above 0 and up to 1", Real, lambda value: 0 < value <= 1)
        if self.seed is not None:
            self._check("seed", "a whole number", Integral, lambda value: -(1 << 63) <= value < 1 << 63)
        if not all(isinstance(stop, str) and stop for stop in self.stop):
            raise ValueError(f"stop must be strings that are not empty, got {list(self.stop)!r}")

    def _check(self, name: str, allowed: str, kind: type, fits: Callable[[Any], bool]) -> None:
        value = getattr(self, name)
        if not isinstance(value, kind) or isinstance(value, bool) or not fits(value):
            raise ValueError(f"{name} must be {allowed}, got {value!r}")


def model_folder(model: str | Path | None, *, download: bool = True) -> Path:
    """The local folder of a model: the bundled nano (``None``), a folder, or the snapshot of a hub id.

    Raises:
        ModelLoadError: there is no such folder, or the hub cannot give it.
    """
    folder = BUNDLED if model is None else Path(model)
    if (folder / "config.json").is_file():
        return folder
    if model is None:
        raise ModelLoadError(
            f"the bundled model is missing ({folder}); reinstall videochat-tools, or name a model folder"
        )
    if folder.exists() or str(model).startswith((".", "/", "~")) or str(model).count("/") != 1:
        raise ModelLoadError(
            f"no chat model at {folder} (a folder with config.json is needed); give the folder of a converted "
            "checkpoint or a hub id such as owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), local_files_only=not download))
    except Exception as error:  # the hub client raises a dozen kinds, for one way out
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelLoadError(
            f"model {model} is neither a folder nor available from the hub ({reason}); download it and give its folder"
        ) from error


def context_tokens(model: str | Path | None) -> int | None:
    """Prompt and reply together, as written in the model's config.json; ``None`` where it leaves that to a default."""
    config = read_json(model_folder(model, download=False) / "config.json")
    tokens = config.get("text_config", {}).get("max_position_embeddings")
    return None if tokens is None else int(tokens)


class ChatEngine:
    """One chat model. Also a library's ``ClipWatcher``: it turns clips into the tokens that the library keeps.

    Args:
        model: folder or hub id; ``None`` is the bundled nano. Looked for when first needed.
        device: where it runs: ``"cpu"``, ``"cuda"``, …; ``"auto"`` is the first GPU, or else the CPU.
    """

    def __init__(self, model: str | Path | None = None, device: str = "auto") -> None:
        self.model = model
        self.device = device
        self._lock = threading.Lock()
        self._network: ChatNetwork | None = None
        self._watched: OrderedDict[Hashable, Watched] = OrderedDict()

    @cached_property
    def folder(self) -> Path:
        """Where the model's files are. Raises ModelLoadError when there are none."""
        return model_folder(self.model)

    @property
    def network(self) -> ChatNetwork:
        """The loaded networks; the first access loads them."""
        with self._lock:
            if self._network is None:
                from videochat_tools.generation import ChatNetwork

                self._network = ChatNetwork(self.folder, self.device)
            return self._network

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the same clip would become other clip tokens; the language model has no part in it."""
        config = read_json(self.folder / "config.json")
        shape = {key: config.get(key) for key in ("vision_config", "qformer_config", "vision_layer_norm_eps", "family")}
        digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
        for path in (self.folder / "processor_config.json", *sorted((self.folder / "qformer_tokenizer").glob("*"))):
            if path.is_file():  # pixels and the words that the Q-Former is told
                digest.update(path.read_bytes())
        for path in sorted(self.folder.glob("*.safetensors")):
            for piece in _tensors_before_the_language_model(path):
                digest.update(piece)
        return digest.hexdigest()[:16]

    @cached_property
    def grounding(self) -> Grounding:
        """How the model was trained to be asked."""
        path = self.folder / GROUNDING_FILE
        told = read_json(path) if path.is_file() else {}
        known = {field.name: told[field.name] for field in fields(Grounding) if field.name in told}
        for name, value in known.items():
            wanted = type(getattr(Grounding(), name))
            if type(value) is not wanted:
                raise ModelLoadError(f"{path}: {name} must be {wanted.__name__}, got {value!r}; correct the file")
        return Grounding(**known)

    @property
    def told_frames(self) -> int:
        """How many frames of a library clip the model is told the times of."""
        return self.num_frames if self.grounding.frame_times else 0

    @property
    def num_frames(self) -> int:
        """Frames a clip."""
        return self.network.num_frames

    @property
    def frame_size(self) -> int:
        """Side of the square that the networks see, in pixels."""
        return self.network.frame_size

    @property
    def tokens_per_clip(self) -> int:
        """Places that one clip of ``frame_size`` takes in the prompt."""
        return self.network.tokens_per_clip

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt and reply together."""
        return self.network.context_tokens

    def watch(self, clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Clips [n, T, height, width, 3] as clip tokens, :data:`ClipTokens` of each in one array."""
        return self.network.watch(clips)

    def token_ids(self, text: str) -> list[int]:
        """Ids of a piece of text in the language model's vocabulary."""
        return self.network.token_ids(text)

    def prompt_tokens(self, turns: Sequence[Turn]) -> int:
        """Tokens of a conversation as a prompt, those of its clips included; no clip is looked at."""
        return self.network.prompt_tokens(turns)

    @property
    def weights_state(self) -> tuple[object, ...]:
        """Sizes and times of the files of the weights: others, if not always, when the model is another one."""
        files = sorted(self.folder.glob("*.safetensors"))
        return tuple((path.name, state.st_size, state.st_mtime_ns) for path in files for state in (path.stat(),))

    def reply(self, turns: Sequence[Turn], settings: ReplySettings, clip_source: ClipSource | None = None) -> Reply:
        """Answer a conversation: iterate over the result for the pieces of text as they are made.

        Raises:
            MediaError: a video or picture of the conversation cannot be read.
            UnsupportedContentError: a segment is named, but there is no ``clip_source`` to give its tokens.
            ContextTooLongError: the conversation does not fit the model.
        """
        shown: list[Turn] = []
        tokens: list[ClipTokens] = []
        for turn in turns:
            seen = [self._look_at(visual, clip_source) for visual in turn.visuals]
            shown.append(replace(turn, visuals=tuple(visual for visual, _ in seen)))
            tokens += [clip for _, clip in seen]
        return self.network.reply(shown, tokens, settings)

    def _look_at(self, visual: Visual, clip_source: ClipSource | None) -> tuple[Visual, ClipTokens]:
        """The clip tokens of a visual, and the visual with the words that the model is used to find beside it."""
        if visual.file_id is None:
            tokens, seconds = self._watch_once(visual)
            if self.network.timestamps and seconds and not visual.caption:
                visual = replace(visual, caption=self.network.timestamp_message(seconds))
            return visual, tokens
        if clip_source is None:
            raise UnsupportedContentError(
                f"file_id {visual.file_id} names a library segment, but this model is tied to no library; "
                "pass clip_source=library.clip_source to ChatVideoChat, or give the video by url"
            )
        return visual, clip_source(visual.file_id)

    def _watch_once(self, visual: Visual) -> Watched:
        """Clip tokens of a visual that is no library segment; a later turn about it decodes nothing again."""
        from videochat_tools.visuals import read_clip, visual_identity

        identity = visual_identity(visual)
        with self._lock:
            if identity in self._watched:
                self._watched.move_to_end(identity)
                return self._watched[identity]
        network = self.network
        frames, seconds = read_clip(visual, network.num_frames, None if network.tiled else network.frame_size)
        watched = network.watch(frames[None], image=visual.kind == "image")[0], seconds
        with self._lock:
            self._watched[identity] = watched
            while len(self._watched) > MAX_WATCHED:
                self._watched.popitem(last=False)
        return watched


def load_engine(model: str | Path | None = None, device: str = "auto") -> ChatEngine:
    """The engine of a model, shared by all who name the same model and device. Nothing is read yet."""
    local = model is not None and Path(model).exists()
    return _engine(str(Path(str(model)).resolve()) if local else None if model is None else str(model), device)


@lru_cache(maxsize=2)  # a process that swaps models all the time should not keep them all
def _engine(model: str | None, device: str) -> ChatEngine:
    return ChatEngine(model, device)


def _tensors_before_the_language_model(path: Path) -> Iterator[bytes]:
    """Names and raw bytes of the tensors that shape clip tokens, read straight from a safetensors file.

    Layout: 8 bytes little-endian length of the header, the header as JSON, the data (safetensors format, version 0.3).
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name in sorted(header):
            if name.startswith(("language_model.", "projection.")):
                continue
            begin, end = header[name]["data_offsets"]
            file.seek(8 + length + begin)
            yield f"{name} {header[name]['dtype']} {header[name]['shape']}".encode()
            yield file.read(end - begin)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model. Raises ModelLoadError when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read ({error}); download or convert the model again") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds no JSON object; download or convert the model again")
    return content
