"""Our models inside lmms-eval, the field's own harness: ``--model videochat_tools``.

lmms-eval (0.7 and later) finds :func:`model_manifest` through the entry point ``lmms_eval.models`` that this package
declares; nothing has to be registered by hand::

    python -m lmms_eval --model videochat_tools --model_args pretrained=./videochat2-mistral --tasks mvbench

It gives a model the plain text of a question and the paths of its videos, so that prompts and scores are its own, not
those of :mod:`videochat_tools.evaluation.benchmarks`. ``answer_start`` gives the first words of every answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videochat_tools.errors import BenchmarkError, UnsupportedContentError

try:
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelManifest
except ImportError as error:
    raise BenchmarkError(
        f"the adapter needs lmms-eval 0.7 or later ({error}); since that asks for av<16, which this package cannot "
        "use, run: pip install --no-deps lmms-eval, and install what it then misses"
    ) from error

if TYPE_CHECKING:
    from videochat_tools.content import Turn, Visual

__all__ = ["VideoChatLmms", "model_manifest"]

NAME = "videochat_tools"


def model_manifest() -> ModelManifest:
    """What the entry point tells lmms-eval."""
    return ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.{VideoChatLmms.__name__}")


class VideoChatLmms(lmms):  # type: ignore[misc]  # untyped
    """A chat model of any size behind the interface of lmms-eval's simple models.

    Args:
        pretrained: Folder or hub id; the bundled nano without one.
        device: As torch names it, or "auto".
        max_tokens: Longest answer where a task sets no limit.
        answer_start: First words of every answer, which the model goes on from; they are no part of the reply.
        batch_size: Accepted, since the harness always passes one; questions are answered one by one.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        device: str = "auto",
        max_tokens: int = 200,
        answer_start: str = "",
        batch_size: int | str = 1,
    ) -> None:
        from videochat_tools.engine import load_engine

        super().__init__()
        self.pretrained = pretrained or "videochat2-nano"  # names the harness's own caches
        self._engine = load_engine(pretrained, device or "auto")
        self._max_tokens = int(max_tokens)
        self._answer_start = answer_start

    def generate_until(self, requests: list[Any]) -> list[str]:
        """One reply for each request, in order."""
        replies = []
        for context, generation, doc_to_visual, doc_id, task, split in self._arguments(requests):
            seen = doc_to_visual(self.task_dict[task][split][doc_id])
            reply = self._reply([_turn(context, seen)], generation)
            self.cache_hook.add_partial("generate_until", (context, generation), reply)
            replies.append(reply)
        return replies

    def generate_until_multi_round(self, requests: list[Any]) -> list[tuple[str, ...]]:
        """For each request the replies of all its rounds.

        The task says after each round what comes next, from the replies so far, and when it is over. Every round is a
        question of its own, as with the harness's own models: what was said before is in the words of the task, or in
        none.
        """
        replies = []
        for context, generation, doc_to_visual, doc_to_text, doc_id, task, split in self._arguments(requests):
            document = self.task_dict[task][split][doc_id]
            seen, told, rounds, over = doc_to_visual(document), None, list[str](), False
            while not over:
                rounds.append(self._reply([_turn(context, seen)], generation))
                seen, context, over, rounds, told = doc_to_text(
                    document, previous_output=rounds, round_idx=len(rounds), previous_round_info=told
                )
                rounds = list(rounds)
            replies.append(tuple(rounds))
        return replies

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """For each request how unlikely the given answer is, and whether it is what the model would write.

        The number is the mean negative log-likelihood of the answer's tokens: in spite of the interface's own words,
        the harness takes the *least* of the options for the model's choice, since its own models return their loss.
        A request of context and answer alone asks for the answer without question and video.
        """
        return [self._unlikeliness(*arguments) for arguments in self._arguments(requests)]

    def _unlikeliness(
        self, context: str, answer: Any, doc_to_visual: Any = None, doc_id: Any = None, task: str = "", split: str = ""
    ) -> tuple[float, bool]:
        from videochat_tools.engine import ReplySettings

        document = self.task_dict[task][split][doc_id] if task else None
        wanted = answer if isinstance(answer, str) else str(answer(document))
        seen = [] if doc_to_visual is None else doc_to_visual(document)
        settings = ReplySettings(answer_start=self._answer_start or None)
        return self._engine.reply([_turn(context, seen)], settings).loss_of(wanted.strip())

    def _arguments(self, requests: list[Any]) -> Iterable[Any]:
        from tqdm import tqdm

        return (request.args for request in tqdm(requests, disable=self.rank != 0, desc="VideoChat"))

    def _reply(self, turns: Sequence[Turn], generation: dict[str, Any]) -> str:
        from videochat_tools.engine import ReplySettings

        until = generation.get("until") or ()
        until = (until,) if isinstance(until, str) else until
        temperature = float(generation.get("temperature") or 0.0) if generation.get("do_sample", True) else 0.0
        settings = ReplySettings(
            max_tokens=int(generation.get("max_new_tokens") or self._max_tokens),
            temperature=temperature,
            top_p=float(generation.get("top_p") or 1.0),
            stop=tuple(stop for stop in until if stop),
            answer_start=self._answer_start or None,
        )
        return "".join(self._engine.reply(turns, settings))


def _turn(context: str, seen: Any) -> Turn:
    """What the harness asks, as a turn of a conversation."""
    from videochat_tools.content import Turn
    from videochat_tools.context import neutral_text

    return Turn("human", neutral_text(context).strip(), tuple(_visual(each) for each in seen or ()))


def _visual(given: Any) -> Visual:
    """A path of a video or picture, or a PIL picture, as what the engine looks at."""
    import io

    from videochat_tools.content import Visual

    if isinstance(given, str | Path):
        path = Path(given)
        still = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp")
        return Visual("image" if still else "video", path=path)
    if hasattr(given, "save"):  # PIL.Image.Image
        data = io.BytesIO()
        given.convert("RGB").save(data, format="PNG")
        return Visual("image", data=data.getvalue())
    raise UnsupportedContentError(f"cannot take a {type(given).__name__} from lmms-eval, only paths and pictures")
