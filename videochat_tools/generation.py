"""The networks of a chat model at work: clips into clip tokens, a conversation into a reply, token by token."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from videochat_tools.content import Turn
from videochat_tools.engine import ClipTokens, ReplySettings
from videochat_tools.errors import ContextTooLongError, ModelLoadError
from videochat_tools.models.frame_sampling import timestamp_message
from videochat_tools.models.modeling_chat import ClipChatModel
from videochat_tools.models.videochat2 import VideoChat2Processor
from videochat_tools.models.videochat2.prompts import Message

logger = logging.getLogger(__name__)

WATCH_BATCH = 8  # clips at once: keeps a CPU busy, and 8 clips of 16 frames of 224x224 are under 0.1 GB as floats


class ChatNetwork:
    """A loaded checkpoint with its processor."""

    def __init__(self, folder: Path, device: str) -> None:
        self.device = _device(device)
        # Half precision is slow or missing on CPUs; there everything runs in single precision.
        dtype = torch.float32 if self.device.type == "cpu" else "auto"
        self.model = _load(folder, dtype).to(self.device).eval()
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
        logger.info("loaded %s on %s", folder, self.device)

    def token_ids(self, text: str) -> list[int]:
        """Ids of a piece of text in the middle of a prompt."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
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
        return self.continue_prompt(render_turns(turns, self.processor), clip_tokens, settings)

    def continue_prompt(self, prompt: str, clip_tokens: Sequence[ClipTokens], settings: ReplySettings) -> Reply:
        """As :meth:`reply`, of a prompt that stands in the model's template already, with a place for each clip.

        Raises:
            ContextTooLongError: The prompt does not fit the model.
        """
        views = [len(tokens) // self.tokens_per_view for tokens in clip_tokens]
        ids, visual_mask = self.processor.tokenize_prompt(prompt, views)
        if len(ids) >= self.context_tokens:
            raise ContextTooLongError(
                f"the conversation has {len(ids)} tokens with its clips, but the model takes {self.context_tokens} "
                "together with the reply; drop earlier turns or clips"
            )
        with torch.inference_mode():
            tokens = torch.from_numpy(np.concatenate(clip_tokens)[None]).to(self.device) if clip_tokens else None
            mask = torch.tensor([visual_mask], device=self.device) if clip_tokens else None
            embeds = self.model.embed_prompt(torch.tensor([ids], device=self.device), mask, tokens)
        room = min(settings.max_tokens, self.context_tokens - len(ids))
        return Reply(self, embeds, sum(visual_mask), settings, room)


def render_turns(turns: Sequence[Turn], processor: VideoChat2Processor) -> str:
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
    return processor.render_chat(messages, system="\n".join(turn.text for turn in turns if turn.role == "system"))


class Reply:
    """A reply in the making. Iterate once for its pieces; afterwards the counts are final.

    Attributes:
        input_tokens: tokens of the prompt, those of clips included.
        video_tokens: how many of them are clip tokens.
        output_tokens: tokens made, those of a stop sequence included.
        finish_reason: ``"stop"`` when the model or a stop sequence ended it, ``"length"`` at the limit of tokens.
    """

    def __init__(
        self, network: ChatNetwork, embeds: Tensor, video_tokens: int, settings: ReplySettings, room: int
    ) -> None:
        self.input_tokens = embeds.shape[1]
        self.video_tokens = video_tokens
        self.output_tokens = 0
        self.finish_reason = "length"
        self._network = network
        self._embeds = embeds
        self._settings = settings
        self._room = room

    def __iter__(self) -> Iterator[str]:
        stops = (*self._network.stop_texts, *self._settings.stop)
        made: list[int] = []
        shown = ""
        for token in self._tokens():
            self.output_tokens += 1
            if token in self._network.stop_ids:
                self.finish_reason = "stop"
                break
            made.append(token)
            text = self._network.text(made)
            cut = min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
            if cut is not None:
                self.finish_reason = "stop"
                yield from _new(text[:cut].strip(), shown)
                return
            sure = text[: len(text) - _unsure(text, stops)].strip()
            yield from _new(sure, shown)
            shown = max(shown, sure, key=len)
        yield from _new(self._network.text(made).strip(), shown)

    def _tokens(self) -> Iterator[int]:
        """Ids one by one, each drawn after the one before it was run."""
        settings = self._settings
        generator = torch.Generator(device=self._embeds.device)
        if settings.temperature > 0:
            if settings.seed is None:
                generator.seed()
            else:
                generator.manual_seed(settings.seed)
        cache, step = None, {"inputs_embeds": self._embeds}
        for _ in range(self._room):
            with torch.inference_mode():
                output = self._network.model(**step, past_key_values=cache, use_cache=True, logits_to_keep=1)
                token = _pick(output.logits[0, -1].float(), settings, generator)
            yield token
            cache = output.past_key_values
            step = {"input_ids": torch.tensor([[token]], device=self._embeds.device)}


def _load(folder: Path, dtype: torch.dtype | str) -> ClipChatModel:
    """The network, with every weight from the files.

    Raises:
        ModelLoadError: the files cannot be read, or would leave weights as they were drawn.
    """
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # a model of a second's loading needs none
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
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
    return loaded


def _new(text: str, shown: str) -> Iterator[str]:
    if len(text) > len(shown):
        yield text[len(shown) :]


def _unsure(text: str, stops: Sequence[str]) -> int:
    """How many last characters must wait: they may begin a stop sequence, or be half of a character."""
    broken = len(text) - len(text.rstrip("\ufffd"))
    begun = (n for stop in stops for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n]))
    return max(broken, max(begun, default=0))


def _pick(logits: Tensor, settings: ReplySettings, generator: torch.Generator) -> int:
    """The next id from logits [vocabulary]."""
    if settings.temperature == 0:
        return int(logits.argmax())
    chances, ids = (logits / settings.temperature).softmax(-1).sort(descending=True)
    # Dropped are ids that only come after `top_p` is already reached; the likeliest always stays.
    chances = chances.masked_fill(chances.cumsum(-1) - chances >= settings.top_p, 0.0)
    return int(ids[torch.multinomial(chances, 1, generator=generator)])


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
