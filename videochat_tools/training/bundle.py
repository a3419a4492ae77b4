"""Trained weights into the folders that ship with the package: half precision on disk, single precision in use."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
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
    _load(network, [state], "network.")
    options = ProcessorOptions(
        image_size=vision_config().image_size,
        squash_images=False,
        max_text_length=MAX_TEXT,
        truncation_side="right",
        video_instruction=None,
        image_instruction=None,
    )
    _save(network, VideoChat2Processor(None, tokenizer, options), folder)


def bundle_chat(states: Sequence[Path], folder: Path, *, max_clips: int = 3, size: Size = NANO) -> None:
    """Write the chat network from checkpoints of :mod:`videochat_tools.training.instruct`.

    Several checkpoints of one descent are averaged, which beat each of them (model soups, arXiv 2203.05482).
    """
    pieces = build_qformer_tokenizer(MAX_TEXT)
    words = build_llm_tokenizer()
    network = VideoChat2ForConditionalGeneration(chat_config(len(pieces), len(words), size))
    _load(network, states, "network.")
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


def _load(network: nn.Module, files: Sequence[Path], prefix: str) -> None:
    """Take the means of the tensors below a prefix; all of the network's must be there."""
    states = [read_state(file) for file in files]
    network.load_state_dict(
        {
            name.removeprefix(prefix): torch.stack([state[name] for state in states]).float().mean(dim=0)
            for name in states[0]
            if name.startswith(prefix)
        }
    )


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
        "--chat", type=existing_path, nargs="+", help="state.pt of the instruct stage; several are averaged"
    )
    parser.add_argument("--folder", type=Path, default=BUNDLED)
    parser.add_argument("--max-clips", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, default="nano")
    arguments = parser.parse_args()
    if arguments.align:
        bundle_retrieval(arguments.align, arguments.folder / "retrieval", SIZES[arguments.size])
    if arguments.chat:
        size = SIZES[arguments.size]
        bundle_chat(arguments.chat, arguments.folder / "chat", max_clips=arguments.max_clips, size=size)


if __name__ == "__main__":
    main()
