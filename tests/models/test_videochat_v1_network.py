"""The network of the first VideoChat at a few thousand weights: what a user or a trainer of it would notice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models import VideoChatConfig, VideoChatVisionConfig, VideoChatVisionModel

VISION: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8, "num_global_layers": 2, "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture
def tower() -> VideoChatVisionModel:
    torch.manual_seed(0)
    return VideoChatVisionModel(VideoChatVisionConfig(**VISION)).eval()


def clips(count: int, frames: int, height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(count, frames, 3, height, width, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (3, 16, 40), (9, 48, 32)])
@torch.no_grad()
def test_tower_takes_any_length_and_grid(tower: VideoChatVisionModel, frames: int, height: int, width: int) -> None:
    states = tower(clips(2, frames, height, width)).last_hidden_state
    assert states.shape == (2, frames * (1 + height // 8 * (width // 8)) + 1, 32)
    with pytest.raises(UnsupportedContentError, match="multiples of 8"):
        tower(clips(2, frames, height + 1, width))


@torch.no_grad()
def test_frames_are_seen_one_by_one_and_the_global_token_sees_them_all(tower: VideoChatVisionModel) -> None:
    pixels = clips(1, 4)
    changed = pixels.clone()
    changed[:, 2] += 1
    one, other = tower(pixels).last_hidden_state, tower(changed).last_hidden_state
    frames, again = one[:, :-1].view(4, 17, 32), other[:, :-1].view(4, 17, 32)
    assert torch.equal(frames[[0, 1, 3]], again[[0, 1, 3]])
    assert not torch.allclose(frames[2], again[2], atol=1e-3)
    assert not torch.allclose(one[:, -1], other[:, -1], atol=1e-3)
    swapped = tower(pixels[:, [1, 0, 2, 3]]).last_hidden_state
    assert not torch.allclose(one[:, -1], swapped[:, -1], atol=1e-4)  # the order of frames matters to it
    torch.testing.assert_close(tower(torch.cat([pixels, changed])).last_hidden_state, torch.cat([one, other]))


@torch.no_grad()
def test_patch_embedding_is_the_convolution_that_it_stands_for(tower: VideoChatVisionModel) -> None:
    pixels, layer = clips(2, 3), tower.patch_embedding
    maps = F.conv3d(pixels.transpose(1, 2), layer.weight, layer.bias, stride=layer.stride)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(pixels), maps.flatten(3).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_training_reaches_every_weight_and_drops_in_the_global_layers_only(tower: VideoChatVisionModel) -> None:
    pixels = clips(1, 2)
    torch.manual_seed(0)
    one = tower.train()(pixels).last_hidden_state
    other = tower(pixels).last_hidden_state
    assert torch.equal(one[:, :-1], other[:, :-1])
    assert not torch.allclose(one[:, -1], other[:, -1])
    one.square().sum().backward()
    assert [name for name, weight in tower.named_parameters() if weight.grad is None] == []


@torch.no_grad()
def test_the_vision_norm_is_computed_in_single_precision(videochat_model: Any) -> None:
    norm = videochat_model.vision_layernorm
    states = torch.randn(1, 3, norm.weight.numel()).half() * 300  # their squares are beyond half precision
    expected = F.layer_norm(states.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    assert norm(states).dtype == torch.float16
    torch.testing.assert_close(norm(states).float(), expected, rtol=1e-3, atol=1e-3)


def test_configurations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="reads no text"):
        VideoChatConfig(qformer_config={"text_input": True})
    with pytest.raises(ValueError, match=r"num_global_layers must be in 0\.\.39"):
        VideoChatVisionConfig(num_global_layers=40)
    with pytest.raises(ValueError, match="no multiple of patch_size"):
        VideoChatVisionConfig(image_size=225)
