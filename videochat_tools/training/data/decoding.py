"""Decoding in processes of their own: a file that crashes or hangs a decoder costs that one process, not the run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch

from videochat_tools.errors import TrainingDataError, UnreadableMediaError, VideoChatError

from .reading import Clip, ClipRequest

__all__ = ["DecoderLostError", "DecodingPool"]

Result = TypeVar("Result")
ReadClip = Callable[[ClipRequest], Clip]

_START_SECONDS = 300.0  # that a process may take to import PyTorch; many at once on a network disk are slow
_CLOSED = "the decoding processes have been ended; make a new mixture to read on"
_END_SECONDS = 5.0  # that the system may take to end a killed process


class DecoderLostError(UnreadableMediaError):
    """A file crashed the decoder, or kept it busy for too long. To try it again costs as much again."""


class DecodingPool:
    """Threads that each have a decoding process.

    Args:
        read: What the processes do, such as :func:`read_clip` with a sampling: picklable, and raises only our errors.
        workers: How many, at least 1.
        time_limit: Seconds that one clip may take.
    """

    def __init__(self, read: ReadClip, workers: int, time_limit: float) -> None:
        self._read, self._time_limit = read, time_limit
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decoding")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._closed = False
        # A fork of this process would inherit its threads' locks and its GPU; a server that has imported everything
        # gives new processes at once.
        self._context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
        self._context.set_forkserver_preload([__name__])

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Run something in one of the threads; it may call :meth:`read`."""
        if self._closed:
            raise TrainingDataError(_CLOSED)
        return self._threads.submit(work)

    def read(self, request: ClipRequest) -> Clip:
        """One clip, read in the process of the calling thread.

        Raises:
            DecoderLostError: The process crashed, or was ended after ``time_limit``.
            UnreadableMediaError: What the reading function says.
            TrainingDataError: The pool is closed, or its processes do not start.
        """
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            worker = _Worker(self._context, self._read)
            with self._lock:
                self._workers.append(worker)
                if self._closed:
                    worker.end()
                    raise TrainingDataError(_CLOSED)
            self._own.worker = worker
        try:
            return worker.read(request, self._time_limit)
        except DecoderLostError:
            self._own.worker = None
            with self._lock:
                self._workers.remove(worker)
            raise

    @property
    def pids(self) -> list[int]:
        """Numbers of the decoding processes that are running."""
        with self._lock:
            return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def close(self) -> None:
        """End threads and processes, whatever they are doing."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.end()
        self._threads.shutdown(wait=True)


class _Worker:
    """One process, and this end of the pipe to it."""

    def __init__(self, context: multiprocessing.context.BaseContext, read: ReadClip) -> None:
        try:
            self._pipe, theirs = context.Pipe()
            self.process: BaseProcess = context.Process(target=_serve, args=(theirs, read), daemon=True)  # type: ignore[attr-defined]
            self.process.start()
            theirs.close()
            if not self._pipe.poll(_START_SECONDS):
                raise TimeoutError(f"it took over {_START_SECONDS:g} s")
            self._pipe.recv()
        except (EOFError, OSError) as error:
            raise TrainingDataError(
                f"a decoding process did not start ({str(error) or 'it ended at once'}); use fewer workers, and start "
                "training in a script from below `if __name__ == '__main__':`"
            ) from error

    def read(self, request: ClipRequest, time_limit: float) -> Clip:
        try:
            self._pipe.send(request)
            if not self._pipe.poll(time_limit):
                self.end()
                raise DecoderLostError(
                    f"{request.path} kept the decoder busy for over {time_limit:g} s; check it, or raise time_limit"
                )
            answer = self._pipe.recv()
            if isinstance(answer, str):
                raise UnreadableMediaError(answer)
            shape, times = answer
            pixels = torch.empty(shape)
            self._pipe.recv_bytes_into(pixels.numpy().data.cast("B"))
            return Clip(pixels, times)
        except (EOFError, OSError) as error:
            self.process.join(_END_SECONDS)
            how = self._last_words()
            self.end()
            raise DecoderLostError(f"{request.path} crashed the decoder ({how}); check it") from error

    def _last_words(self) -> str:
        code = self.process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        return signal.Signals(-code).name

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        self.process.kill()
        self.process.join(_END_SECONDS)
        self._pipe.close()


def _serve(pipe: Connection, read: ReadClip) -> None:
    """What a decoding process does, until the other end of its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, it is for the training process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # there are as many processes as the user wants to be busy
    try:
        pipe.send("ready")
        while True:
            request = pipe.recv()
            try:
                clip = read(request)
            except VideoChatError as error:
                pipe.send(str(error))
                continue
            pipe.send((tuple(clip.pixels.shape), clip.times))
            # As bytes: PyTorch's own way needs shared memory, of which containers have little.
            pipe.send_bytes(clip.pixels.contiguous().numpy().data.cast("B"))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    """A process that hangs in a decoder does not see that nobody waits for it any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
