"""A language model moves to other rotary angles without losing what it knows on the way."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from videochat_tools.training.angles import SlidingAngles


def _model(theta: float) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
    ).eval()


@torch.no_grad()
def test_angles_slide_from_those_of_the_weights_to_those_of_the_configuration() -> None:
    torch.manual_seed(0)
    old, new, plain = _model(1e4), _model(1e8), _model(1e8)
    for layer in old.model.layers:  # sharp enough for angles to matter
        layer.self_attn.q_proj.weight.mul_(20)
        layer.self_attn.k_proj.weight.mul_(20)
    for model in (new, plain):
        model.load_state_dict(old.state_dict())
    ids = torch.randint(50, (1, 120), generator=torch.Generator().manual_seed(1))
    wanted = old(ids).logits

    def away(model: LlamaForCausalLM) -> float:
        return float((model(ids).logits - wanted).abs().max())

    angles = SlidingAngles(new, 1e4)
    assert away(new) < 1e-4 < 0.1 < away(plain)  # as it was, though its pairs stand in another order
    steps = []
    for share in (0.01, 0.1, 0.5, 1.0):
        angles.slide(share)
        steps.append(away(new))
    assert steps[0] < 0.1 * steps[-1] and steps[0] < steps[1] < steps[-1]
    assert torch.equal(new.model.rotary_emb.inv_freq, plain.model.rotary_emb.inv_freq)  # what a saved folder would have
