"""Training data: annotation files of several corpora to batches of pixels and conversations.

::

    corpora = read_corpora("corpora.toml")
    mixture = Mixture(corpora, ClipSampling(), batch_size=8, seed=42, rank=0, world_size=1, workers=4)
    for batch in mixture.epoch(0, start=0):
        ...
    print(mixture.failures.report())

docs/training-data.md describes the files.
"""

from .annotations import AnnotationFile
from .corpora import Corpus, read_corpora
from .failures import Failures
from .mixture import Mixture, SampleBatch
from .sampling import ClipSampling

__all__ = ["AnnotationFile", "ClipSampling", "Corpus", "Failures", "Mixture", "SampleBatch", "read_corpora"]
