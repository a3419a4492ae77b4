"""What the retrieval heads know: finding clips by their captions, and one attribute at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from videochat_tools.embeddings import ClipEmbeddings, VideoEncoder, text_similarity
from videochat_tools.evaluation.held_out import PROBES, Probe, draw_probe, render_views, unique_captions
from videochat_tools.evaluation.statistics import Score, rate
from videochat_tools.training.world.scene import Scene

__all__ = ["embed", "pool_scores", "probe_scores"]

POOLS = (100, 1000)  # clips that one caption is searched among
RERANKED = 10  # best clips by similarity that the matching head puts in order
BATCH = 32  # clips embedded at a time


def embed(encoder: VideoEncoder, scenes: Sequence[Scene], view: str) -> ClipEmbeddings:
    """What a library would keep of the scenes, see :func:`~videochat_tools.evaluation.held_out.render_views`."""
    if view == "blank":  # all alike
        one = encoder.embed_clips(render_views(scenes[:1], view, encoder.num_frames, encoder.frame_size))
        features_of_all = None if one.features is None else one.features.repeat(len(scenes), axis=0)
        return ClipEmbeddings(one.vectors.repeat(len(scenes), axis=0), features_of_all)
    parts = []
    for start in range(0, len(scenes), BATCH):
        clips = render_views(scenes[start : start + BATCH], view, encoder.num_frames, encoder.frame_size)
        parts.append(encoder.embed_clips(clips))
    features = [part.features for part in parts if part.features is not None]
    return ClipEmbeddings(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate(features) if len(features) == len(parts) else None,
    )


def pool_scores(
    encoder: VideoEncoder, scenes: Sequence[Scene], embeddings: ClipEmbeddings, pool: int, *, seed: int = 0
) -> list[Score]:
    """Recall of clips by captions that are true of no other clip of the pool.

    Args:
        encoder: What embedded the clips.
        scenes: Of the clips.
        embeddings: Of the clips, in the same order.
        pool: Clips in one pool; a last pool that would be smaller is left out.
        seed: Chooses the wording of the captions.

    Returns:
        Recall at 1 and 5 by similarity alone, and, if the encoder kept features, after the best ten were put in
        order as a library does it: by similarity and matching head together.
    """
    found: dict[str, list[bool]] = {"similarity @1": [], "similarity @5": []}
    if embeddings.features is not None:
        found |= {"re-ranked @1": [], "re-ranked @5": []}
    rng = Random(seed)
    for start in range(0, len(scenes) - pool + 1, pool):
        captions = unique_captions(rng, scenes[start : start + pool])
        asked = [number for number, text in enumerate(captions) if text is not None]
        texts = [text for text in captions if text is not None]
        similarity = text_similarity(encoder.embed_texts(texts), embeddings.vectors[start : start + pool])
        for text, row, right in zip(texts, similarity, asked, strict=True):
            best = np.argsort(-row, kind="stable")[:RERANKED]
            found["similarity @1"].append(best[0] == right)
            found["similarity @5"].append(right in best[:5])
            if embeddings.features is not None:
                matched = encoder.match(text, embeddings.features[start + best])
                ordered = best[np.argsort(-encoder.calibration.judged_logit(row[best], matched), kind="stable")]
                found["re-ranked @1"].append(ordered[0] == right)
                found["re-ranked @5"].append(right in ordered[:5])
    return [
        rate(f"recall {name}, pool {pool}", outcomes, chance=int(name[-1]) / pool)
        for name, outcomes in found.items()
        if outcomes
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    clip: int
    probe: Probe


def probe_scores(
    encoder: VideoEncoder, scenes: Sequence[Scene], embeddings: ClipEmbeddings, *, limit: int, seed: int = 1
) -> list[Score]:
    """Choosing the true caption among some that differ in one point: by similarity, by matching head, and by both.

    Args:
        encoder: What embedded the clips.
        scenes: Of the clips.
        embeddings: Of the clips, in the same order.
        limit: Clips asked about for one attribute, at most.
        seed: Chooses the wording of the captions and the changes.
    """
    scores: list[Score] = []
    for kind, options in PROBES.items():
        rng = Random(f"{seed} {kind}")
        asked: list[_Asked] = []
        for clip, scene in enumerate(scenes):
            if len(asked) == limit:
                break
            probe = draw_probe(rng, scene, kind)
            if probe is not None:
                asked.append(_Asked(clip, probe))
        if not asked:
            continue
        texts = encoder.embed_texts([text for each in asked for text in each.probe.options])
        vectors = texts.reshape(len(asked), options, -1)
        similar = [
            text_similarity(vectors[place], embeddings.vectors[[each.clip]])[:, 0] for place, each in enumerate(asked)
        ]
        right = [each.probe.right for each in asked]
        scores.append(rate(f"{kind} by similarity", _hits(similar, right), chance=1 / options))
        if embeddings.features is not None:
            matched = _match(encoder, asked, embeddings.features)
            both = [encoder.calibration.judged_logit(*pair) for pair in zip(similar, matched, strict=True)]
            scores.append(rate(f"{kind} by matching", _hits(matched, right), chance=1 / options))
            scores.append(rate(f"{kind} by both", _hits(both, right), chance=1 / options))
    return scores


def _match(
    encoder: VideoEncoder, asked: Sequence[_Asked], features: npt.NDArray[np.float16]
) -> list[npt.NDArray[np.float32]]:
    """What the matching head says to every option of every probe."""
    judged = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        texts = [text for each in part for text in each.probe.options]
        clips = [each.clip for each in part for _ in each.probe.options]
        judged += np.split(encoder.match(texts, features[clips]), len(part))
    return judged


def _hits(judged: Sequence[npt.NDArray[np.floating[Any]]], right: Sequence[int]) -> list[bool]:
    return [int(values.argmax()) == place for values, place in zip(judged, right, strict=True)]
