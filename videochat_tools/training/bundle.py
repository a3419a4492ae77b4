"""Trained weights into the folders that ship with the package: half precision on disk, single precision in use."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from videochat_tools.engine import GROUNDING_FILE, Grounding
from videochat_tools.models.videochat2 import ProcessorOptions, VideoChat2Processor
from videochat_tools.models.videochat2.modeling_videochat2 import (
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
)
from videochat_tools.training.loop import existing_path, read_state
from videochat_tools.training.recipe import NANO, SIZES, Size, chat_config, retrieval_config, vision_config
from videochat_tools.training.tokenizers import build_llm_tokenizer, build_qformer_tokenizer

__all__ = ["bundle_chat", "bundle_retrieval"]

BUNDLED = Path(__file__).parents[1] / "models" / "nano"
MAX_TEXT = 64  # WordPieces


def bundle_retrieval(state: Path, folder: Path, size: Size = NANO) -> None:
    """Write the stage-1 network from a checkpoint of :mod:`videochat_tools.training.align`."""
    tokenizer = build_qformer_tokenizer(MAX_TEXT)
    network = VideoChat2ForRetrieval(retrieval_config(len(tokenizer), size))
    network.load_state_dict(_tensors(network, state))
    options = ProcessorOptions(
        image_size=vision_config().image_size,
        squash_images=False,
        max_text_length=MAX_TEXT,
        truncation_side="right",
        video_instruction=None,
        image_instruction=None,
    )
    _save(network, VideoChat2Processor(None, tokenizer, options), folder)


def bundle_chat(
    states: Sequence[Path],
    folder: Path,
    *,
    shares: Sequence[float] = (),
    max_clips: int = 3,
    size: Size = NANO,
) -> None:
    """Write the chat network from checkpoints of :mod:`videochat_tools.training.instruct`.

    Several of one descent are averaged, which beat each of them (model soups, arXiv 2203.05482); those before and after
    it learned something new, by shares: that keeps more of what it knew (WiSE-FT, arXiv 2109.01903).

    Args:
        states: Checkpoints, or folders of chat models of the same size and vocabulary.
        folder: Where the network goes.
        shares: Of each in the mean; by default all the same.
        max_clips: How many clips at a time it was trained to be shown.
        size: Of the network.
    """
    shares = shares or [1 / len(states)] * len(states)
    pieces = build_qformer_tokenizer(MAX_TEXT)
    words = build_llm_tokenizer()
    network = VideoChat2ForConditionalGeneration(chat_config(len(pieces), len(words), size))
    parts = [
        {name: share * value for name, value in _tensors(network, state).items()}
        for state, share in zip(states, shares, strict=True)
    ]
    network.load_state_dict({name: sum(part[name] for part in parts) for name in parts[0]})
    options = ProcessorOptions(
        image_size=vision_config().image_size,
        squash_images=False,
        num_visual_tokens=network.config.num_visual_tokens,
        max_text_length=MAX_TEXT,
        video_instruction=None,  # see bank.tell_clips
        image_instruction=None,
    )
    _save(network, VideoChat2Processor(words, pieces, options), folder)
    grounding = Grounding(max_clips, frame_times=True, brief_tools=True)  # as conversations.py and drills.py have it
    (folder / GROUNDING_FILE).write_text(json.dumps(asdict(grounding)) + "\n", encoding="utf-8")


def _tensors(network: PreTrainedModel, trained: Path) -> dict[str, Tensor]:
    """Weights for a network out of a checkpoint, or out of a folder in the Hugging Face layout, in single precision."""
    if trained.is_dir():
        return type(network).from_pretrained(trained, dtype=torch.float32).state_dict()
    prefix = "network."
    return {
        name.removeprefix(prefix): value.float()
        for name, value in read_state(trained).items()
        if name.startswith(prefix)
    }


def _save(network: PreTrainedModel, processor: VideoChat2Processor, folder: Path) -> None:
    network.half()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    config = folder / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = "float32"  # what to compute in: half precision is slow or missing on CPUs
    config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Command line: ``python -m videochat_tools.training.bundle [--align STATE] [--chat STATE] [--folder DIR]``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--align", type=existing_path, help="state.pt of the align stage")
    parser.add_argument(
        "--chat",
        type=existing_path,
        nargs="+",
        help="state.pt of the instruct stage, or the folder of a chat model; several are averaged",
    )
    parser.add_argument("--shares", type=float, nargs="+", default=[], help="of each in the mean (default: the same)")
    parser.add_argument("--folder", type=Path, default=BUNDLED)
    parser.add_argument("--max-clips", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, default="nano")
    arguments = parser.parse_args()
    if arguments.shares and (
        len(arguments.shares) != len(arguments.chat or ()) or abs(sum(arguments.shares) - 1) > 1e-6
    ):
        parser.error("--shares gives every --chat its share, and they add up to 1")
    if arguments.align:
        bundle_retrieval(arguments.align, arguments.folder / "retrieval", SIZES[arguments.size])
    if arguments.chat:
        bundle_chat(
            arguments.chat,
            arguments.folder / "chat",
            shares=arguments.shares,
            max_clips=arguments.max_clips,
            size=SIZES[arguments.size],
        )


if __name__ == "__main__":
    main()
