"""Frames and conversations to the inputs of the networks: one processor for retrieval and for chat."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from videochat_tools.errors import ModelLoadError, UnsupportedContentError

from .image_processing import Frames, check_frames, normalise, resize_frames, standardise
from .pieces import decode_pieces, use_sentencepiece_rules
from .processing_options import ProcessorOptions
from .prompts import PLACEHOLDER, TEMPLATES, Message, PromptTemplate
from .tiling import fit_to_tiles, split_views, tile_grid

__all__ = ["ProcessorOptions", "VideoChat2Processor"]

CONFIG_FILE = "processor_config.json"
QFORMER_TOKENIZER_FOLDER = "qformer_tokenizer"


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
        if tokenizer is not None:
            use_sentencepiece_rules(tokenizer)
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
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
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
            options = ProcessorOptions.from_dict(content)
            tokenizer = AutoTokenizer.from_pretrained(source, **hub) if has_tokenizer else None
            qformer = (
                AutoTokenizer.from_pretrained(source, subfolder=QFORMER_TOKENIZER_FOLDER, **hub)
                if has_qformer
                else None
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ModelLoadError(
                f"no {cls.__name__.removesuffix('Processor')} processor in {source} ({str(error).splitlines()[0]}); "
                f"give a folder that {cls.__name__}.save_pretrained wrote"
            ) from error
        return cls(tokenizer, qformer, options)

    # Pixels

    def num_views(self, height: int, width: int) -> int:
        """Clips that the networks are shown for one video or image of this size: its tiles, and the whole of it."""
        tiling = self.options.tiling
        if tiling is None:
            return 1
        columns, rows = tile_grid(width, height, self.options.image_size, tiling)
        return columns * rows + tiling.global_view

    def pixel_values(self, frames: Frames, *, image: bool = False) -> Tensor:
        """Frames to normalised pixels.

        Args:
            frames: uint8 RGB, one clip [T, H, W, 3] or several [n, T, H, W, 3], of any size. Frames of the right size
                are not resized.
            image: They are still images (T = 1).

        Returns:
            float32 [n * views, T, 3, S, S]; n = 1 for one clip, and one view where there are no tiles. The views of a
            clip stand together: tiles in reading order, then the whole frames.

        Raises:
            UnsupportedContentError: Not an array of 8-bit RGB frames.
        """
        options = self.options
        mean = options.still_mean if image and options.still_mean is not None else options.image_mean
        std = options.still_std if image and options.still_std is not None else options.image_std
        clips = frames if frames.ndim == 5 else frames[None]
        size, tiling = options.image_size, options.tiling
        if tiling is None:
            return normalise(resize_frames(clips, size, squash=image and options.squash_images), mean, std)
        check_frames(clips)
        fitted = (standardise(fit_to_tiles(clip, size, tiling), mean, std) for clip in clips)
        return torch.cat([split_views(clip, size, global_view=tiling.global_view) for clip in fitted])

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
            count: Number of clips n; each view of a tiled one counts.
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
        if isinstance(instruction, str):
            texts = [instruction[:1] if self.options.first_letter_instruction else instruction] * count
        else:
            texts = list(instruction)
        # Positions count over the padded row, so the side matters in batches; each family has its own.
        side: Literal["left", "right"] = "right" if self.options.family == "vicuna" else "left"
        encoded = self.encode_texts(texts, padding_side=side)
        return {f"qformer_{name}": value for name, value in encoded.items()}

    def visual_inputs(
        self, frames: Frames, instruction: str | Sequence[str] | None = None, *, image: bool = False
    ) -> dict[str, Tensor]:
        """All inputs of ``get_clip_tokens`` for one clip [T, H, W, 3] or several [n, T, H, W, 3].

        Args:
            frames: uint8 RGB.
            instruction: One for all clips or one each; None takes the fixed one of the released demos.
            image: They are still images (T = 1).
        """
        pixels = self.pixel_values(frames, image=image)
        if instruction is not None and not isinstance(instruction, str):
            views = self.num_views(*frames.shape[-3:-1])
            instruction = [text for text in instruction for _ in range(views)]
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

    def tokenize_prompt(self, prompt: str, views: Sequence[int] | None = None) -> tuple[list[int], list[bool]]:
        """Ids of a prompt, and which of them are visual places.

        The pieces around ``<VideoHere>`` and ``<ImageHere>`` are tokenised one by one, as for the released models;
        only the first may get a BOS. A visual takes ``num_visual_tokens`` places for each of its views, filled with a
        valid but meaningless id.

        Args:
            prompt: Text with placeholders; videos and images may be mixed.
            views: How many views each visual has (``len(pixel_values)`` of one clip), in reading order. May be left
                out where there are no tiles.

        Raises:
            UnsupportedContentError: ``views`` fit the prompt or this model badly.
        """
        (counts,) = self._share_views([prompt], views)
        tokenizer = self._language_tokenizer()
        filler = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
        ids: list[int] = []
        mask: list[bool] = []
        for number, piece in enumerate(PLACEHOLDER.split(prompt)):
            if number:
                places = self.options.num_visual_tokens * counts[number - 1]
                ids += [filler] * places
                mask += [True] * places
            piece_ids = tokenizer(piece, add_special_tokens=number == 0)["input_ids"]
            ids += piece_ids
            mask += [False] * len(piece_ids)
        return ids, mask

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        views: Sequence[int] | None = None,
        padding_side: Literal["left", "right"] = "left",
    ) -> dict[str, Tensor]:
        """Prompts to a batch.

        Args:
            prompts: Texts with ``<VideoHere>`` / ``<ImageHere>``, such as :meth:`render_chat` gives.
            views: How many views each visual of all prompts has, in reading order; see :meth:`tokenize_prompt`.
            padding_side: "left" to generate, "right" to train.

        Returns:
            ``input_ids``, ``attention_mask`` and (bool) ``visual_mask``, [B, L] each.

        Raises:
            UnsupportedContentError: ``views`` fit the prompts or this model badly.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        shares = self._share_views(prompts, views)
        rows = [self.tokenize_prompt(prompt, share) for prompt, share in zip(prompts, shares, strict=True)]
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
        tokenizer = self._language_tokenizer()
        kept = [int(token) for token in ids]
        for leading in (tokenizer.unk_token_id, tokenizer.bos_token_id):  # what generation once began with
            if kept and kept[0] == leading:
                kept = kept[1:]
        if self.options.family == "vicuna":  # LLaMA's own tokenizer, where the others have fast ones
            return self.clean_answer(decode_pieces(tokenizer, kept))
        return self.clean_answer(str(tokenizer.decode(kept, skip_special_tokens=False)))

    def _language_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise UnsupportedContentError(
                "this processor belongs to a retrieval model and has no language model; use a chat model"
            )
        return self.tokenizer

    def _share_views(self, prompts: Sequence[str], views: Sequence[int] | None) -> list[list[int]]:
        """How many views each visual of each prompt has."""
        visuals = [len(PLACEHOLDER.findall(prompt)) for prompt in prompts]
        if views is None and self.options.tiling is not None and any(visuals):
            raise UnsupportedContentError(
                f"the prompt has {sum(visuals)} visuals and this model looks at several views of each, but views are "
                "not given; pass views=[len(pixel_values), ...], one number for each visual"
            )
        given = [1] * sum(visuals) if views is None else list(views)
        if len(given) != sum(visuals):
            raise UnsupportedContentError(
                f"the prompt has {sum(visuals)} visuals, but views of {len(given)} are given; "
                "put <VideoHere> or <ImageHere> into the prompt once for each visual"
            )
        rest = iter(given)
        return [list(islice(rest, count)) for count in visuals]
