"""Frames and conversations to the inputs of the networks: one processor for retrieval and for chat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from videochat_tools.errors import ModelLoadError, UnsupportedContentError

from .configuration_videochat2 import FAMILIES
from .image_processing import CLIP_MEAN, CLIP_STD, Frames, normalise, resize_frames
from .prompts import PLACEHOLDER, TEMPLATES, Message, PromptTemplate

__all__ = ["ProcessorOptions", "VideoChat2Processor"]

CONFIG_FILE = "processor_config.json"
QFORMER_TOKENIZER_FOLDER = "qformer_tokenizer"


@dataclass(frozen=True)
class ProcessorOptions:
    """What a processor needs to know besides its tokenizers. Defaults are those of the released models.

    Attributes:
        family: Prompt family: "vicuna", "mistral" or "phi3".
        image_size: Side of the square frames in pixels.
        image_mean: Subtracted from red, green and blue in 0..1 (CLIP's).
        image_std: Divided by (CLIP's).
        squash_images: Still images are resized to the square without keeping their shape, as in the released demos.
        num_visual_tokens: Places that a clip takes in the prompt.
        max_text_length: WordPieces of the longest text for the Q-Former; longer ones lose their start (chat, 512)
            or, by ``truncation_side``, their end (stage 1, 32).
        truncation_side: Side that a text which is too long loses.
        video_instruction: What the Q-Former is told when a clip is watched; None tells it nothing.
        image_instruction: The same for still images.
    """

    family: str = "vicuna"
    image_size: int = 224
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD
    squash_images: bool = True
    num_visual_tokens: int = 96
    max_text_length: int = 512
    truncation_side: Literal["left", "right"] = "left"
    video_instruction: str | None = "Watch the video and answer the question."
    image_instruction: str | None = "Observe the image and answer the question."

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        object.__setattr__(self, "image_mean", tuple(self.image_mean))  # JSON gives lists
        object.__setattr__(self, "image_std", tuple(self.image_std))


class VideoChat2Processor:
    """Pixels, Q-Former text and prompts; saved in the folder of the model.

    Attributes:
        tokenizer: Tokenizer of the language model; None in a retrieval folder.
        qformer_tokenizer: WordPiece tokenizer of the Q-Former with ``[DEC]``; None where the Q-Former reads no text.
        options: Everything else.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None = None,
        qformer_tokenizer: PreTrainedTokenizerBase | None = None,
        options: ProcessorOptions | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.qformer_tokenizer = qformer_tokenizer
        self.options = options or ProcessorOptions()
        if qformer_tokenizer is not None:
            qformer_tokenizer.truncation_side = self.options.truncation_side
            if qformer_tokenizer.bos_token is None:  # plain BERT vocabularies; the released models append it
                qformer_tokenizer.add_special_tokens({"bos_token": "[DEC]"})

    # Disk

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write tokenizers and options into a model folder. Keyword arguments are accepted for transformers' sake."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)
        if self.qformer_tokenizer is not None:
            self.qformer_tokenizer.save_pretrained(folder / QFORMER_TOKENIZER_FOLDER)
        content = {
            "processor_class": type(self).__name__,
            **asdict(self.options),
            "has_tokenizer": self.tokenizer is not None,
            "has_qformer_tokenizer": self.qformer_tokenizer is not None,
        }
        (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> VideoChat2Processor:
        """Read what :meth:`save_pretrained` wrote, from a folder or a model hub.

        Args:
            pretrained_model_name_or_path: Folder or hub id.
            **kwargs: ``revision``, ``cache_dir``, ``local_files_only``, ``token``, ... for the hub.

        Raises:
            ModelLoadError: There is no processor, or it is none of this class.
        """
        source = str(pretrained_model_name_or_path)
        hub = {name: value for name, value in kwargs.items() if name != "trust_remote_code"}
        try:
            file = cached_file(source, CONFIG_FILE, **hub)
            content = json.loads(Path(str(file)).read_text(encoding="utf-8"))
            content.pop("processor_class")
            has_tokenizer, has_qformer = content.pop("has_tokenizer"), content.pop("has_qformer_tokenizer")
            options = ProcessorOptions(**content)
            tokenizer = AutoTokenizer.from_pretrained(source, **hub) if has_tokenizer else None
            qformer = (
                AutoTokenizer.from_pretrained(source, subfolder=QFORMER_TOKENIZER_FOLDER, **hub)
                if has_qformer
                else None
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelLoadError(
                f"no VideoChat2 processor in {source} ({str(error).splitlines()[0]}); give a folder that "
                "VideoChat2Processor.save_pretrained wrote"
            ) from error
        return cls(tokenizer, qformer, options)

    # Pixels

    def pixel_values(self, frames: Frames, *, image: bool = False) -> Tensor:
        """Frames to normalised pixels.

        Args:
            frames: uint8 RGB, one clip [T, H, W, 3] or several [n, T, H, W, 3], of any size. Frames of the right size
                are not resized.
            image: They are still images (T = 1).

        Returns:
            float32 [n, T, 3, S, S]; n = 1 for one clip.
        """
        options = self.options
        clips = frames if frames.ndim == 5 else frames[None]
        squares = resize_frames(clips, options.image_size, squash=image and options.squash_images)
        return normalise(squares, options.image_mean, options.image_std)

    # Text of the Q-Former

    def encode_texts(
        self, texts: str | Sequence[str], *, padding_side: Literal["left", "right"] = "right"
    ) -> dict[str, Tensor]:
        """Texts to WordPieces with ``[CLS]`` and ``[SEP]``: ``input_ids`` and ``attention_mask`` [n, L].

        Raises:
            ModelLoadError: This processor has no Q-Former tokenizer.
        """
        if self.qformer_tokenizer is None:
            raise ModelLoadError("this model's Q-Former reads no text (stage 2); use a stage-1, -3 or -4 model")
        encoded = self.qformer_tokenizer(
            [texts] if isinstance(texts, str) else list(texts),
            padding="longest",
            padding_side=padding_side,
            truncation=True,
            max_length=self.options.max_text_length,
            return_tensors="pt",
        )
        return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}

    def instruction_inputs(
        self, count: int, instruction: str | Sequence[str] | None = None, *, image: bool = False
    ) -> dict[str, Tensor]:
        """What the Q-Former is told about each of ``count`` clips.

        Args:
            count: Number of clips n.
            instruction: One for all clips or one each; None takes the fixed one of the released demos.
            image: Take the fixed one for still images.

        Returns:
            ``qformer_input_ids`` and ``qformer_attention_mask`` [n, L]; empty where the Q-Former reads no text or there
            is nothing to tell.
        """
        if instruction is None:
            instruction = self.options.image_instruction if image else self.options.video_instruction
        if self.qformer_tokenizer is None or instruction is None:
            return {}
        texts = [instruction] * count if isinstance(instruction, str) else list(instruction)
        # Positions count over the padded row, so the side matters in batches; each family has its own.
        side: Literal["left", "right"] = "right" if self.options.family == "vicuna" else "left"
        encoded = self.encode_texts(texts, padding_side=side)
        return {f"qformer_{name}": value for name, value in encoded.items()}

    def visual_inputs(
        self, frames: Frames, instruction: str | Sequence[str] | None = None, *, image: bool = False
    ) -> dict[str, Tensor]:
        """All inputs of ``get_clip_tokens`` for one clip [T, H, W, 3] or several [n, T, H, W, 3]."""
        pixels = self.pixel_values(frames, image=image)
        return {"pixel_values": pixels, **self.instruction_inputs(len(pixels), instruction, image=image)}

    # Prompts of the language model

    @property
    def template(self) -> PromptTemplate:
        """The family's way to write a conversation."""
        return TEMPLATES[self.options.family]

    def render_chat(self, messages: Sequence[Message], *, system: str = "", answer_start: str | None = None) -> str:
        """The prompt of a conversation; see :meth:`PromptTemplate.render`. An open answer is added if none is there."""
        last = messages[-1] if messages else None
        if last is None or last[1] is not None:
            messages = [*messages, ("assistant", None)]
        return self.template.render(messages, system=system, answer_start=answer_start)

    def tokenize_prompt(self, prompt: str) -> tuple[list[int], list[bool]]:
        """Ids of a prompt, and which of them are visual places.

        The pieces around ``<VideoHere>`` and ``<ImageHere>`` are tokenised one by one, as for the released models;
        only the first may get a BOS. A visual takes ``num_visual_tokens`` places, filled with a valid but meaningless
        id.
        """
        tokenizer = self._language_tokenizer()
        filler = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
        ids: list[int] = []
        mask: list[bool] = []
        for number, piece in enumerate(PLACEHOLDER.split(prompt)):
            if number:
                ids += [filler] * self.options.num_visual_tokens
                mask += [True] * self.options.num_visual_tokens
            piece_ids = tokenizer(piece, add_special_tokens=number == 0)["input_ids"]
            ids += piece_ids
            mask += [False] * len(piece_ids)
        return ids, mask

    def __call__(
        self, prompts: str | Sequence[str], *, padding_side: Literal["left", "right"] = "left"
    ) -> dict[str, Tensor]:
        """Prompts to a batch.

        Args:
            prompts: Texts with ``<VideoHere>`` / ``<ImageHere>``, such as :meth:`render_chat` gives.
            padding_side: "left" to generate, "right" to train.

        Returns:
            ``input_ids``, ``attention_mask`` and (bool) ``visual_mask``, [B, L] each.
        """
        rows = [self.tokenize_prompt(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        length = max(len(ids) for ids, _ in rows)
        pad = next((i for i in (self._language_tokenizer().pad_token_id,) if i is not None), 0)
        batch = {
            "input_ids": torch.full((len(rows), length), pad),
            "attention_mask": torch.zeros(len(rows), length, dtype=torch.long),
            "visual_mask": torch.zeros(len(rows), length, dtype=torch.bool),
        }
        for row, (ids, mask) in enumerate(rows):
            place = slice(length - len(ids), length) if padding_side == "left" else slice(0, len(ids))
            batch["input_ids"][row, place] = torch.tensor(ids)
            batch["attention_mask"][row, place] = 1
            batch["visual_mask"][row, place] = torch.tensor(mask)
        return batch

    @property
    def stop_sequences(self) -> list[list[int]]:
        """Token sequences that end an answer.

        A tokenizer may write the same stop text in two ways, at the start of a word and after another token (LLaMA:
        " ###" and "##" "#"); both are listed.
        """
        tokenizer = self._language_tokenizer()
        found: list[list[int]] = []
        if tokenizer.eos_token_id is not None and self.options.family != "vicuna":
            found.append([tokenizer.eos_token_id])
        for text in self.template.stop_texts:
            before = tokenizer("a", add_special_tokens=False)["input_ids"]
            after = tokenizer(f"a{text}", add_special_tokens=False)["input_ids"]
            candidates = [tokenizer(text, add_special_tokens=False)["input_ids"]]
            if after[: len(before)] == before:
                candidates.append(after[len(before) :])
            for ids in candidates:
                if ids not in found:
                    found.append(ids)
        return found

    def clean_answer(self, text: str) -> str:
        """What the model said, from decoded text: no special tokens, nothing after a stop text, no role mark."""
        text = self.template.clean_answer(text)
        if self.tokenizer is not None:
            for token in (self.tokenizer.bos_token, self.tokenizer.eos_token, self.tokenizer.pad_token):
                text = text.replace(token, "") if token else text
        return text.strip()

    def decode_answer(self, ids: Sequence[int] | Tensor) -> str:
        """Answer in the newly generated ids of one row."""
        text = self._language_tokenizer().decode(ids, skip_special_tokens=False)
        return self.clean_answer(str(text))

    def _language_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise UnsupportedContentError(
                "this processor belongs to a retrieval model and has no language model; use a chat model"
            )
        return self.tokenizer
