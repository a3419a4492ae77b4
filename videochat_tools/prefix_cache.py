"""What a language model has read already, so that a later turn only runs what is new.

A conversation is kept as the keys and values of its layers, under the *places* of its prompt and reply: the id of a
token, or which row of which clip stands there. A prompt takes over the longest beginning that it shares with one of
the kept conversations, whichever it is; nothing else about it is assumed, so the reply is the one that it would get
without. Kept tensors are never written to: a reply works on its own copy, and any number may share a beginning.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from transformers import DynamicCache

logger = logging.getLogger(__name__)

MAX_CONVERSATIONS = 8
MAX_BYTES = 1 << 30  # of keys and values; a LLaMA of 7B in half precision writes 0.5 MB a token, so 2048 tokens fit

Place = int | tuple[bytes, int]
"""The id of a token, or a digest of the tokens of a clip and the row of them that stands at a visual place."""


def prompt_places(
    ids: Sequence[int], visual_mask: Sequence[bool], clips: Sequence[npt.NDArray[np.floating[Any]]]
) -> list[Place]:
    """What stands at each place of a prompt; clips [rows, width] are told apart by their content."""
    rows: Iterable[Place] = (
        (digest, row)
        for clip in clips
        for digest in (hashlib.blake2b(np.ascontiguousarray(clip).tobytes(), digest_size=16).digest(),)
        for row in range(len(clip))
    )
    clip_rows = iter(rows)
    return [next(clip_rows) if visual else token for token, visual in zip(ids, visual_mask, strict=True)]


@dataclass(frozen=True, slots=True)
class PositionRule:
    """How long keys stay what they are.

    Attributes:
        reusable: Whether the keys of one prompt may serve another at all.
        switch: Length at which every key changes, so that those from before it are worth nothing after it.
    """

    reusable: bool = True
    switch: int | None = None

    @classmethod
    def of(cls, config: Any) -> PositionRule:
        """The rule of a language model, by its configuration.

        Keys hold their position. Nearly always that is all; but Phi-3's long context (``longrope``) turns to other
        frequencies beyond the length it was first trained with, and dynamic scaling does so with every length.
        Layers that keep no keys (linear attention, state spaces) cannot go back to a shared beginning.
        """
        layers = set(getattr(config, "layer_types", None) or ())
        if not layers <= {"full_attention", "sliding_attention"}:
            return cls(reusable=False)
        rope = getattr(config, "rope_parameters", None) or {}
        kinds = [rope, *(value for value in rope.values() if isinstance(value, Mapping))]  # one, or one a layer type
        types = {kind.get("rope_type") for kind in kinds}
        if "dynamic" in types:
            return cls(reusable=False)
        if "longrope" not in types:
            return cls()
        switch = next((kind[_ORIGINAL] for kind in kinds if _ORIGINAL in kind), None)
        return cls(switch=switch or getattr(config, _ORIGINAL, None) or config.max_position_embeddings)


_ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True, slots=True)
class _Conversation:
    places: tuple[Place, ...]
    layers: tuple[tuple[Tensor, Tensor], ...]  # keys and values [1, heads, places, head width] of each layer
    late: bool  # longer than the rule's switch

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)


class PrefixCache:
    """The conversations of one language model that were last continued; safe to use from several threads.

    Args:
        rule: When keys may be used again.
        max_conversations: How many are kept; 0 keeps none.
        max_bytes: Bytes of keys and values that are kept at most, on the model's device.
    """

    def __init__(
        self, rule: PositionRule, *, max_conversations: int = MAX_CONVERSATIONS, max_bytes: int = MAX_BYTES
    ) -> None:
        self.rule = rule
        self.max_conversations = max_conversations
        self.max_bytes = max_bytes
        self._kept: list[_Conversation] = []  # least recently used first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all kept keys and values."""
        with self._lock:
            return sum(conversation.nbytes for conversation in self._kept)

    def clear(self) -> None:
        """Forget all conversations."""
        with self._lock:
            self._kept.clear()

    def new(self) -> DynamicCache | None:
        """An empty cache to run a prompt with; None leaves it to a model whose keys cannot be used again.

        It keeps every key, in layers with a sliding window too: the window is the attention mask's business, and a
        beginning can be taken over only if nothing of it has been thrown away.
        """
        return DynamicCache() if self.rule.reusable else None

    def take(self, places: Sequence[Place]) -> tuple[int, DynamicCache | None]:
        """The longest kept beginning of a prompt: its length, and a cache that holds it.

        The last place is never part of it, because its output is what the reply begins with.
        """
        late = self._late(len(places))
        with self._lock:
            found, length = None, 0
            for conversation in reversed(self._kept):  # of equals the one used last, so that the others may grow old
                if conversation.late == late:
                    shared = min(_shared(conversation.places, places), len(places) - 1)
                    if shared > length:
                        found, length = conversation, shared
            if found is not None:
                self._kept.remove(found)
                self._kept.append(found)
        cache = self.new()
        if found is not None and cache is not None:
            for number, (keys, values) in enumerate(found.layers):
                cache.update(keys[:, :, :length], values[:, :, :length], number)
        return length, cache

    def keep(self, places: Sequence[Place], cache: DynamicCache | None) -> None:
        """Keep what a finished or interrupted reply has run; ``places`` may go on beyond it."""
        if cache is None or not self.rule.reusable or (length := cache.get_seq_length()) == 0:
            return
        layers = tuple((layer.keys, layer.values) for layer in cache.layers)
        new = _Conversation(tuple(places[:length]), layers, self._late(length))
        with self._lock:
            # What is a beginning of the new one is held by it as well.
            self._kept = [
                old for old in self._kept if old.late != new.late or _shared(old.places, new.places) < len(old.places)
            ]
            self._kept.append(new)
            while len(self._kept) > self.max_conversations or (
                self._kept and sum(conversation.nbytes for conversation in self._kept) > self.max_bytes
            ):
                self._kept.pop(0)

    def restarts(self, cached: int, new: int) -> bool:
        """Whether ``new`` tokens after ``cached`` ones change all keys, so that everything has to be run again."""
        return cached > 0 and not self._late(cached) and self._late(cached + new)

    def _late(self, length: int) -> bool:
        return self.rule.switch is not None and length > self.rule.switch


def _shared(left: Sequence[Place], right: Sequence[Place]) -> int:
    """Length of the common beginning."""
    pairs = zip(left, right, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right)))
