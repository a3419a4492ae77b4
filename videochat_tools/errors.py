"""Every error this package raises on purpose.

::

    VideoChatError
    ├── MediaError                a file cannot be used as video or audio
    │   ├── MediaNotFoundError    no such file                       (also FileNotFoundError)
    │   ├── UnreadableMediaError  empty, truncated, or no media file
    │   └── NoVideoStreamError    sound only
    ├── MissingDependencyError    an optional package is not installed (also ImportError)
    ├── ModelLoadError            a checkpoint is missing, incomplete or of the wrong kind
    ├── LibraryError              the library folder cannot be used
    │   ├── LibraryNotFoundError  no library at this path
    │   └── UnknownVideoError     the library holds no such video    (also KeyError)
    ├── BenchmarkError            the files of a benchmark, or the results of an earlier run, cannot be used
    ├── TrainingDataError         annotation files or corpora of a training run cannot be used
    ├── ConfigurationError        a setting, or a file of settings, cannot be used (also ValueError)
    ├── MissingProgramError       a program that does a part of the work is not on the PATH
    ├── ContextTooLongError       the prompt does not fit the model  (also ValueError)
    ├── UnsupportedContentError   a message block the model cannot take (also ValueError)
    └── UnsupportedSchemaError    a JSON schema that a reply cannot be made to keep to (also ValueError)

A message says what was given, what is allowed and what to do next, in one line.
"""

from __future__ import annotations

__all__ = [
    "BenchmarkError",
    "ConfigurationError",
    "ContextTooLongError",
    "LibraryError",
    "LibraryNotFoundError",
    "MediaError",
    "MediaNotFoundError",
    "MissingDependencyError",
    "MissingProgramError",
    "ModelLoadError",
    "NoVideoStreamError",
    "TrainingDataError",
    "UnknownVideoError",
    "UnreadableMediaError",
    "UnsupportedContentError",
    "UnsupportedSchemaError",
    "VideoChatError",
]


class VideoChatError(Exception):
    """Base of all errors of this package."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else self.__class__.__name__


class MediaError(VideoChatError):
    """A file cannot be used as video or audio."""


class MediaNotFoundError(MediaError, FileNotFoundError):
    """There is no file at the given path."""


class UnreadableMediaError(MediaError):
    """The file is empty, truncated before its first frame, or no media file at all."""


class NoVideoStreamError(MediaError):
    """The file has sound but no picture."""


class MissingDependencyError(VideoChatError, ImportError):
    """An optional package is needed. The message names the install command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed; run: pip install 'videochat-tools[{extra}]'"
        )


class MissingProgramError(VideoChatError):
    """A program that does a part of the work is not on the PATH. The message says how to install it."""


class ModelLoadError(VideoChatError):
    """A checkpoint is missing, incomplete or of the wrong kind."""


class LibraryError(VideoChatError):
    """The library folder cannot be used."""


class LibraryNotFoundError(LibraryError):
    """There is no library at the given path."""


class UnknownVideoError(LibraryError, KeyError):
    """The library holds no such video."""


class BenchmarkError(VideoChatError):
    """The files of a benchmark, or the results of an earlier run, cannot be used."""


class TrainingDataError(VideoChatError):
    """Annotation files or corpora of a training run cannot be used."""


class ConfigurationError(VideoChatError, ValueError):
    """A setting, or a file of settings, cannot be used."""


class ContextTooLongError(VideoChatError, ValueError):
    """The prompt does not fit the model's context."""


class UnsupportedContentError(VideoChatError, ValueError):
    """A message holds a block that the model cannot take."""


class UnsupportedSchemaError(VideoChatError, ValueError):
    """A tool or an answer has a JSON schema that a reply cannot be made to keep to."""
