"""A stand-in with two vectors a clip, of which the mean says nothing and the best says all."""

from __future__ import annotations

import numpy as np
import pytest

from videochat_tools.embeddings import ClipEmbeddings
from videochat_tools.testing import FakeVideoEncoder


class _Mirrored(FakeVideoEncoder):
    """Every vector with its opposite. Those of the stand-in have no negative number: the best is always the first."""

    @property
    def rows(self) -> int:
        return 2

    def embed_clips(self, clips: np.ndarray) -> ClipEmbeddings:
        made = super().embed_clips(clips)
        return ClipEmbeddings(np.concatenate([made.vectors, -made.vectors], axis=1), made.features)


@pytest.fixture
def mirrored() -> FakeVideoEncoder:
    return _Mirrored()
