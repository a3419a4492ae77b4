"""The known mistakes about language models, each found by something that can be measured, each with its own words.

What can be wrong with a checkpoint itself is found where it is read: files and pickles in ``checkpoints``, stages in
``kinds``, the names of LoRA tensors in ``lora``.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedConfig

from videochat_tools.errors import ModelLoadError

from .tensor_folder import TensorFolder

__all__ = ["PAD_TOKEN", "check_language_model", "check_llama_1", "is_delta"]

PAD_TOKEN = "[PAD]"
"""The one token that Vicuna v0 and StableVicuna have more than LLaMA: id 32000, so that the vocabulary is 32001."""

_LLAMA_1 = {"max_position_embeddings": 2048, "rms_norm_eps": 1e-6}  # LLaMA-2 has more: 4096 and 1e-5
_MODEL_TYPES = {"vicuna": "llama", "mistral": "mistral", "phi3": "phi3"}
_RELEASED = {
    "vicuna": "Vicuna-7B v0 or StableVicuna-13B, made with: "
    "videochat convert delta --base LLAMA --delta DELTA --output DIR",
    "mistral": "Mistral-7B-Instruct-v0.2",
    "phi3": "Phi-3-mini-128k-instruct",
}
# Norm weights: around 1 in a language model (LLaMA-7B: 0.4 and more in its later layers), around 0 in a difference of
# two. The largest mean of all norms lies far from this bound in both.
_DELTA_NORM = 0.1


def check_language_model(folder: str | Path, config: PreTrainedConfig, family: str) -> None:
    """Raise when a language model is a known wrong one for a prompt family; only norm weights are read.

    Args:
        folder: In the Hugging Face layout.
        config: Its configuration.
        family: "vicuna" (VideoChat and VideoChat2-Vicuna), "mistral" or "phi3".

    Raises:
        ModelLoadError: Another kind of model, LLaMA-2 for LLaMA-1, an unapplied delta, or another vocabulary.
    """
    wanted = f"give {_RELEASED[family]}"
    if config.model_type != _MODEL_TYPES[family]:
        raise ModelLoadError(
            f"wrong language model: {folder} holds a {config.model_type} model, the checkpoint was trained on a "
            f"{_MODEL_TYPES[family]} model; {wanted}"
        )
    if family == "vicuna":
        check_llama_1(folder, config, wanted)
    weights = TensorFolder(folder)
    if is_delta(weights):
        raise ModelLoadError(
            f"unapplied delta: the norm weights in {folder} are around 0, where those of a language model are around "
            f"1; add it to LLaMA first: videochat convert delta --base LLAMA --delta {folder} --output DIR"
        )
    _check_vocabulary(weights, config, family, wanted)


def is_delta(weights: TensorFolder) -> bool:
    """Whether these are differences between two language models: all norm weights are around 0, not 1."""
    norms = [name for name in weights.shapes if name.endswith("norm.weight")]
    return bool(norms) and max(float(weights.tensor(name).float().abs().mean()) for name in norms) < _DELTA_NORM


def check_llama_1(folder: str | Path, config: PreTrainedConfig, wanted: str) -> None:
    """Raise when a LLaMA is a later one, which has tensors of the same names and shapes.

    Args:
        folder: Of the language model.
        config: Its configuration.
        wanted: What to give instead, as the end of the message.

    Raises:
        ModelLoadError: The configuration is not that of LLaMA-1.
    """
    found = {name: getattr(config, name) for name in _LLAMA_1}
    signs = [f"{name} {found[name]:g}, not {value:g}" for name, value in _LLAMA_1.items() if found[name] > value]
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    if groups != heads:
        signs.append(f"num_key_value_heads {groups}, not {heads}")
    if signs:
        raise ModelLoadError(
            f"LLaMA-2 or later given: {folder} has {' and '.join(signs)} as LLaMA-1 has; the checkpoint was trained on "
            f"LLaMA-1; {wanted}"
        )


def _check_vocabulary(weights: TensorFolder, config: PreTrainedConfig, family: str, wanted: str) -> None:
    rows = {
        shape[0] for name, shape in weights.shapes.items() if name.endswith(("embed_tokens.weight", "lm_head.weight"))
    }
    if rows and rows != {config.vocab_size}:
        listed = " and ".join(str(count) for count in sorted(rows))
        raise ModelLoadError(
            f"vocabulary: config.json in {weights.folder} says {config.vocab_size}, the weights have {listed} rows; "
            f"{wanted}"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.folder)
    except (OSError, ValueError):
        return  # whoever needs the tokenizer says that it is not there
    tokens = len(tokenizer)
    if family == "vicuna":  # by what LLaMA's own tokenizer has, whether the delta's came with it or not
        tokens = max(tokens, tokenizer.vocab_size + 1)
    if config.vocab_size < tokens:
        extra = f" ({PAD_TOKEN} is the last)" if family == "vicuna" else ""
        raise ModelLoadError(
            f"vocabulary: {config.vocab_size} tokens in {weights.folder}, the checkpoint was trained with "
            f"{tokens}{extra}; {wanted}"
        )
    if family == "vicuna" and PAD_TOKEN not in tokenizer.get_vocab():
        raise ModelLoadError(
            f"vocabulary: the tokenizer in {weights.folder} has {len(tokenizer)} tokens, the weights "
            f"{config.vocab_size}: {PAD_TOKEN} is missing; take the tokenizer files of the delta"
        )
