"""Original tensors into a network that was built on the meta device."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from videochat_tools.errors import ModelLoadError

from .report import Layout, LoadReport

__all__ = ["fill_model", "join_parts"]


def fill_model(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    names: Callable[[str], tuple[str, ...]],
    layout: Layout,
    source: str,
    ignore: re.Pattern[str],
    skip: str = "\0",
    optional: Collection[str] = (),
) -> LoadReport:
    """Put original tensors into a model on the meta device, in float32.

    Args:
        model: Changed in place.
        tensors: By their original names.
        names: Our tensor name to the original names of its parts: one, or two for the fused attention bias (queries,
            values; the towers have no key bias, so zeros come between them).
        layout: Components of the original files, for the report.
        source: Names of the files, for the report and for errors.
        ignore: Finds original names that the network does not need.
        skip: Our names that start with this are filled elsewhere.
        optional: Original names that may be left over: those of an earlier stage, given beside the file that counts.

    Returns:
        The complete report.

    Raises:
        ModelLoadError: The tensors are not exactly those of the network.
    """
    state: dict[str, Tensor] = {}
    expected: list[str] = []
    missing: list[str] = []
    for name, place in model.state_dict().items():
        if name.startswith(skip):
            continue
        originals = names(name)
        expected += originals
        absent = [original for original in originals if original not in tensors]
        missing += absent
        if not absent:
            state[name] = join_parts(originals, tensors, place, layout, source)
    needed = set(expected)
    unexpected = sorted(
        name for name in tensors if name not in needed and name not in optional and not ignore.search(name)
    )
    report = LoadReport.count(layout, source, expected=expected, missing=missing, unexpected=unexpected)
    report.check()
    model.load_state_dict(state, strict=False, assign=True)
    return report


def join_parts(
    originals: tuple[str, ...], tensors: Mapping[str, Tensor], place: Tensor, layout: Layout, source: str
) -> Tensor:
    """One tensor of a network, in float32, out of its one or two original ones.

    Raises:
        ModelLoadError: Its shape is not that of ``place``.
    """
    # Copies: the file may be mapped into memory, and must be free to go.
    parts = [tensors[original].to(torch.float32, copy=True) for original in originals]
    value = parts[0] if len(parts) == 1 else torch.cat([parts[0], torch.zeros_like(parts[0]), parts[1]])
    if value.shape != place.shape:
        raise ModelLoadError(
            f"{layout.component(originals[0]).name}: {originals[0]} in {source} has shape {tuple(value.shape)}, the "
            f"configuration asks for {tuple(place.shape)}; give the configuration that this file was made with"
        )
    return value
