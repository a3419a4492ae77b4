"""Full-size networks against the lists of tensors of the released files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from videochat_tools.evaluation.inventories import NETWORKS, compare, main


def _inventory(shared: Path, name: str) -> Any:
    return json.loads((shared / "reference" / f"inventory_{name}.json").read_text())


def test_all_eight_fit(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = {path.stem.removeprefix("inventory_") for path in (shared / "reference").glob("inventory_*.json")}
    assert listed == NETWORKS.keys()
    assert main([str(shared / "reference")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "8 of 8"
    assert len(lines) == 9


def test_a_difference_is_seen_in_both_directions(shared: Path) -> None:
    inventory = _inventory(shared, "vc2_vicuna_stage3")
    keys = inventory["keys"]
    gone = next(key for key in keys if key.endswith("lora_B.default.weight"))
    other = next(key for key in keys if key.endswith("patch_embed.proj.weight"))
    del keys[gone]
    keys["vision_encoder.encoder.norm.weight"] = {"shape": [1024]}
    keys[other]["shape"][-1] += 1
    result = compare("vc2_vicuna_stage3", inventory)
    assert result.unexpected == (gone,)
    assert result.missing == ("vision_encoder.encoder.norm.weight",)
    assert result.reshaped == (other,)
    assert not result.fits
    assert "DIFFERS" in str(result)
