"""The networks of a chat model at work: clips into clip tokens, a conversation into a reply, token by token."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from videochat_tools.constrained import Guide, Vocabulary
from videochat_tools.content import Turn
from videochat_tools.engine import ClipTokens, ReplySettings, read_json
from videochat_tools.errors import ContextTooLongError, ModelLoadError
from videochat_tools.models.frame_sampling import timestamp_message
from videochat_tools.models.modeling_chat import ClipChatModel
from videochat_tools.models.videochat2 import VideoChat2Processor
from videochat_tools.models.videochat2.prompts import Message
from videochat_tools.prefix_cache import PositionRule, PrefixCache, prompt_places
from videochat_tools.reply import Prompt, Reply

logger = logging.getLogger(__name__)

WATCH_BATCH = 8  # clips at once: keeps a CPU busy, and 8 clips of 16 frames of 224x224 are under 0.1 GB as floats


class ChatNetwork:
    """A loaded checkpoint with its processor."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = _device(device)
        self.model = _load(folder, self.device).to(self.device).eval()
        self.processor: VideoChat2Processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        config = self.model.config
        self.num_frames: int = config.vision_config.num_frames
        self.frame_size: int = config.vision_config.image_size
        self.tokens_per_view: int = config.num_visual_tokens
        self.tokens_per_clip = self.tokens_per_view * self.processor.num_views(self.frame_size, self.frame_size)
        self.tiled = self.processor.options.tiling is not None
        self.timestamps = self.processor.options.timestamps
        self.context_tokens: int = config.text_config.max_position_embeddings
        tokenizer = self.processor.tokenizer
        if tokenizer is None:
            raise ModelLoadError(f"{folder} has no tokenizer of its language model; give the folder of a chat model")
        self.tokenizer = tokenizer
        single = {sequence[0] for sequence in self.processor.stop_sequences if len(sequence) == 1}
        self.stop_ids = frozenset({*single, tokenizer.eos_token_id} - {None})
        self.stop_texts = self.processor.template.stop_texts
        rule = PositionRule.of(config.text_config)
        self.prefix_cache = PrefixCache(rule)
        # Frequencies that change with the length are state of the network: one step at a time.
        self.running: Any = nullcontext() if rule == PositionRule() else threading.Lock()
        logger.info("loaded %s on %s", folder, self.device)
        if not rule.reusable:
            logger.info("%s: the keys of this language model cannot be used again; every turn runs it all", folder)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer, as forms of replies need it; half a second for a vocabulary of 32,000."""
        return Vocabulary(self.tokenizer)

    def token_ids(self, text: str) -> list[int]:
        """Ids of a piece of text in the middle of a prompt."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Text of the ids of a reply."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def timestamp_message(self, seconds: Sequence[float]) -> str:
        """What models with ``timestamps`` are told about the frames of a video, in the words of the released ones."""
        return timestamp_message(seconds)

    def watch(
        self, clips: npt.NDArray[np.uint8], *, image: bool = False, instruction: str | None = None
    ) -> npt.NDArray[np.float16]:
        """Clips [n, T, height, width, 3] as clip tokens [n, views * queries, width]; one view where none is tiled.

        ``instruction`` is what the Q-Former is told, in place of what the processor's options say.
        """
        parts = []
        for start in range(0, len(clips), WATCH_BATCH):
            some = clips[start : start + WATCH_BATCH]
            inputs = self.processor.visual_inputs(some, instruction, image=image)
            batches = {name: value.split(WATCH_BATCH) for name, value in inputs.items()}  # of views
            for batch in zip(*batches.values(), strict=True):
                views = {name: value.to(self.device) for name, value in zip(batches, batch, strict=True)}
                with torch.inference_mode():
                    tokens = self.model.get_clip_tokens(**views)
                parts.append(tokens.to(torch.float16).cpu().numpy())
        views_of_all = np.concatenate(parts)
        return views_of_all.reshape(len(clips), -1, views_of_all.shape[-1])

    def reply(self, turns: Sequence[Turn], clip_tokens: Sequence[ClipTokens], settings: ReplySettings) -> Reply:
        """Put the conversation into the model's own template; the reply is made while it is iterated over.

        Args:
            turns: the conversation.
            clip_tokens: those of all its visuals, in order, [views * queries, width] each.
            settings: how to reply.
        """
        prompt = render_turns(turns, self.processor, answer_start=settings.answer_start)
        return self.continue_prompt(prompt, clip_tokens, settings)

    def prompt_tokens(self, turns: Sequence[Turn]) -> int:
        """Tokens of a conversation as a prompt; a clip counts as one of ``frame_size``, whatever its shape is."""
        views = [self.tokens_per_clip // self.tokens_per_view] * sum(len(turn.visuals) for turn in turns)
        return len(self.processor.tokenize_prompt(render_turns(turns, self.processor), views)[0])

    def continue_prompt(self, prompt: str, clip_tokens: Sequence[ClipTokens], settings: ReplySettings) -> Reply:
        """As :meth:`reply`, of a prompt that stands in the model's template already, with a place for each clip.

        Raises:
            ContextTooLongError: The prompt does not fit the model.
            UnsupportedSchemaError: The form of the reply cannot be kept.
        """
        views = [len(tokens) // self.tokens_per_view for tokens in clip_tokens]
        ids, visual_mask = self.processor.tokenize_prompt(prompt, views)
        if len(ids) >= self.context_tokens:
            raise ContextTooLongError(
                f"the conversation has {len(ids)} tokens with its clips, but the model takes {self.context_tokens} "
                "together with the reply; drop earlier turns or clips"
            )
        rows = torch.from_numpy(np.concatenate(clip_tokens)[None]) if clip_tokens else None
        room = min(settings.max_tokens, self.context_tokens - len(ids))
        guide = None if settings.form is None else Guide(self.vocabulary, settings.form, room, self.stop_ids)
        parts = Prompt(ids, visual_mask, rows, prompt_places(ids, visual_mask, clip_tokens))
        return Reply(self, parts, settings, room, guide)


def render_turns(turns: Sequence[Turn], processor: VideoChat2Processor, *, answer_start: str | None = None) -> str:
    """A conversation in the model's own template, ending where the reply begins.

    The clips of one turn share a message where the template writes one clip a line (vicuna, the nano), have a message
    each where it closes them one by one (mistral), and open the question that follows elsewhere (phi3).
    """
    template = processor.template
    messages: list[Message] = []
    waiting = ""
    for turn in turns:
        if turn.role == "system":
            continue
        if turn.role == "assistant":
            messages.append(("assistant", template.answer_text(turn.text)))
            continue
        shown = [template.visual_text(visual.kind, visual.caption) for visual in turn.visuals]
        if not template.visual_alone:
            waiting += "".join(shown)
        elif shown and template.visual_end.isspace():
            messages.append(("human", "".join(shown)))
        else:
            messages += [("human", text) for text in shown]
        if turn.text:
            messages.append(("human", waiting + template.question_text(turn.text)))
            waiting = ""
    if waiting:
        messages.append(("human", waiting))
    system = "\n".join(turn.text for turn in turns if turn.role == "system")
    return processor.render_chat(messages, system=system, answer_start=answer_start)


def _load(folder: Path, device: torch.device) -> ClipChatModel:
    """The network, with every weight from the files.

    Everything runs in single precision, as in the reference, but for a language model that was saved in half precision:
    on a GPU it stays so. On CPUs half precision is slow or missing.

    Raises:
        ModelLoadError: the files cannot be read, or would leave weights as they were drawn.
    """
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # a model of a second's loading needs none
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelLoadError(
            f"no chat model can be loaded from {folder} ({reason}); convert or download it again"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    if lacking := sorted([*report["missing_keys"], *(str(key) for key in report["mismatched_keys"])]):
        raise ModelLoadError(
            f"{folder} lacks {len(lacking)} weights of a {type(model).__name__}, such as {lacking[0]}; "
            "convert the original checkpoint with: videochat convert"
        )
    loaded: ClipChatModel = model
    if device.type != "cpu" and (half := language_dtype(folder)) is not None:
        loaded.language_model.to(half)
    return loaded


def language_dtype(folder: Path) -> torch.dtype | None:
    """The half precision that a model's config.json records for its language model; None where it records none."""
    recorded = read_json(folder / "config.json").get("text_config", {})
    return _HALVES.get(str(recorded.get("dtype") or recorded.get("torch_dtype")))


_HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelLoadError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadError(f"device {name!r} was asked for, but torch sees no GPU; use device='cpu'")
    return device
