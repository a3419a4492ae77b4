"""A trained chat model put on a tower and a Q-Former that learned more.

What the rows of a clip hold moves a little when their network learns. The projection is carried over by least squares,
so that the language model reads the new rows nearly as it read the old ones, before it learns to read them better.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from videochat_tools.models.videochat2 import VideoChat2Processor
from videochat_tools.models.videochat2.modeling_videochat2 import (
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
)
from videochat_tools.training.bank import see_clips, tell_clips
from videochat_tools.training.clips import draw_clip
from videochat_tools.training.loop import existing_path
from videochat_tools.training.recipe import clip_format

__all__ = ["carry_over", "transplant"]

log = logging.getLogger(__name__)

_BATCH = 32
_RIDGE = 1e-3  # of the variance of the rows; draws the map to that which changes nothing


def carry_over(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """The linear map that takes rows back to what they were: ``after @ matrix + shift`` is nearly ``before``.

    Args:
        before: [rows, h] of the old network.
        after: [rows, h] of the new one, of the same clips.

    Returns:
        matrix [h, h] and shift [h].
    """
    before, after = before.double(), after.double()
    old, new = before.mean(dim=0), after.mean(dim=0)
    rows, change = after - new, (before - old) - (after - new)
    ridge = _RIDGE * rows.square().sum(dim=0).mean() * torch.eye(rows.shape[1], dtype=rows.dtype)
    matrix = torch.eye(rows.shape[1], dtype=rows.dtype) + torch.linalg.solve(rows.T @ rows + ridge, rows.T @ change)
    return matrix.float(), (old - new @ matrix).float()


@torch.no_grad()
def transplant(chat: Path, retrieval: Path, folder: Path, *, clips: int = 1024, seed: int = 0) -> tuple[float, float]:
    """Write the chat model of ``chat`` with the tower and the Q-Former of ``retrieval``.

    Args:
        chat: Folder of the chat model; all but its sight is kept.
        retrieval: Folder of the encoder, of the same size.
        folder: Where the new chat model goes.
        clips: How many both watch, fresh ones of the training world.
        seed: Of them.

    Returns:
        How far the new rows are from the old ones, as they are and carried over, as shares of the old ones' variance.
    """
    network = VideoChat2ForConditionalGeneration.from_pretrained(chat, dtype=torch.float32).eval()
    sight = VideoChat2ForRetrieval.from_pretrained(retrieval, dtype=torch.float32)
    pieces = VideoChat2Processor.from_pretrained(chat).qformer_tokenizer
    before = _rows(network, pieces, clips, seed)
    for part in ("vision_encoder", "vision_layernorm", "qformer"):
        network.get_submodule(part).load_state_dict(sight.get_submodule(part).state_dict())
    slots = network.query_tokens.shape[1]
    network.query_tokens.copy_(sight.query_tokens[:, :slots])
    network.extra_query_tokens.copy_(sight.query_tokens[:, slots:])
    after = _rows(network, pieces, clips, seed)
    matrix, shift = carry_over(before, after)
    projection = network.projection
    projection.bias += projection.weight @ shift
    projection.weight.copy_(projection.weight @ matrix.T)
    spread = (before - before.mean(dim=0)).square().sum()
    moved, left = (float((rows - before).square().sum() / spread) for rows in (after, after @ matrix + shift))
    shutil.copytree(chat, folder, dirs_exist_ok=True)
    network.half().save_pretrained(folder)
    shutil.copyfile(chat / "config.json", folder / "config.json")  # which says what to compute in
    return moved, left


def _rows(
    network: VideoChat2ForConditionalGeneration, pieces: PreTrainedTokenizerBase, clips: int, seed: int
) -> Tensor:
    form, told = clip_format(network.config.vision_config), []
    for start in range(0, clips, _BATCH):
        rng = Random(f"transplant {seed} {start}")
        shown = [draw_clip(rng, form) for _ in range(min(_BATCH, clips - start))]
        told.append(tell_clips(network, pieces, see_clips(network, shown, form), choice=False).float())
    return torch.cat(told).flatten(0, 1)


def main() -> None:
    """Command line: ``python -m videochat_tools.training.transplant --chat DIR --retrieval DIR --folder DIR``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--chat", type=existing_path, required=True, help="folder of the chat model")
    parser.add_argument("--retrieval", type=existing_path, required=True, help="folder of the encoder")
    parser.add_argument("--folder", type=Path, required=True, help="where the new chat model goes")
    parser.add_argument("--clips", type=int, default=1024, help="that both watch")
    arguments = parser.parse_args()
    if arguments.folder.resolve() == arguments.chat.resolve():
        parser.error(f"--folder is the folder of --chat, {arguments.chat}, which stays as it is: name another one")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    moved, left = transplant(arguments.chat, arguments.retrieval, arguments.folder, clips=arguments.clips)
    log.info("the rows moved by %.3f of their variance; carried over, %.3f is left", moved, left)


if __name__ == "__main__":
    main()
