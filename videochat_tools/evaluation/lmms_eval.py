"""Our models inside lmms-eval, the field's own harness: ``--model videochat_tools``.

lmms-eval (0.7 and later) finds :func:`model_manifest` through the entry point ``lmms_eval.models`` that this package
declares; nothing has to be registered by hand::

    python -m lmms_eval --model videochat_tools --model_args pretrained=./videochat2-mistral --tasks mvbench

It gives a model the plain text of a question and the paths of its videos, so that prompts and scores are its own, not
those of :mod:`videochat_tools.evaluation.benchmarks`. ``answer_start`` gives the first words of every answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from videochat_tools.errors import BenchmarkError, UnsupportedContentError

try:
    from lmms_eval.api.model import lmms
    from lmms_eval.models.registry_v2 import ModelManifest
except ImportError as error:
    raise BenchmarkError(
        f"the adapter needs lmms-eval 0.7 or later ({error}); since that asks for av<16, which this package cannot "
        "use, run: pip install --no-deps lmms-eval, and install what it then misses"
    ) from error

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
        from tqdm import tqdm

        return [self._reply(*request.args) for request in tqdm(requests, disable=self.rank != 0, desc="VideoChat")]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Not offered: tasks that score given answers need probabilities, which these models are not asked for."""
        raise NotImplementedError("videochat_tools writes answers; choose a task of output_type generate_until")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Not offered."""
        raise NotImplementedError("videochat_tools answers one question at a time; choose a task of one round")

    def _reply(
        self, context: str, generation: dict[str, Any], doc_to_visual: Any, doc_id: Any, task: str, split: str
    ) -> str:
        from videochat_tools.content import Turn
        from videochat_tools.context import neutral_text
        from videochat_tools.engine import ReplySettings

        seen = doc_to_visual(self.task_dict[task][split][doc_id]) or []
        turn = Turn("human", neutral_text(context).strip(), tuple(_visual(each) for each in seen))
        until = generation.get("until") or ()
        temperature = float(generation.get("temperature") or 0.0) if generation.get("do_sample", True) else 0.0
        settings = ReplySettings(
            max_tokens=int(generation.get("max_new_tokens") or self._max_tokens),
            temperature=temperature,
            top_p=float(generation.get("top_p") or 1.0),
            stop=(until,) if isinstance(until, str) else tuple(until),
            answer_start=self._answer_start or None,
        )
        return "".join(self._engine.reply([turn], settings))


def _visual(given: Any) -> Any:
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
