"""The network that a stage begins with: configuration, weights of the stages before it, and its processor."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, PreTrainedConfig, PreTrainedModel

from videochat_tools.errors import ConfigurationError, ModelLoadError
from videochat_tools.models import (
    VideoChat2Config,
    VideoChat2ForConditionalGeneration,
    VideoChat2ForRetrieval,
    VideoChat2Processor,
    VideoChat2RetrievalConfig,
    VideoChatConfig,
    VideoChatForConditionalGeneration,
    VideoChatProcessor,
)
from videochat_tools.models.loading import (
    Lora,
    language_model_config,
    load_adapter,
    load_language_model,
    read_checkpoint,
    without_adapter,
)
from videochat_tools.models.loading.folder import BERT, RETRIEVAL_OPTIONS, bert_tokenizer, language_tokenizer
from videochat_tools.models.videochat2 import ProcessorOptions, TilingOptions
from videochat_tools.models.videochat2.image_processing import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from videochat_tools.training.released import released_recipe

from .options import StageOptions
from .sources import bert_parts, released_parts, umt_parts

__all__ = ["Start", "build_empty", "network_config", "pixel_statistics", "start_network", "tiling"]

log = logging.getLogger(__name__)

_LANGUAGE_MODEL = "language_model."
_MODELS: Mapping[type[PreTrainedConfig], type[PreTrainedModel]] = {
    VideoChatConfig: VideoChatForConditionalGeneration,
    VideoChat2Config: VideoChat2ForConditionalGeneration,
    VideoChat2RetrievalConfig: VideoChat2ForRetrieval,
}


@dataclass(frozen=True)
class Start:
    """What a stage begins with.

    Attributes:
        model: On the CPU; the language model in its own precision, the rest in float32. LoRA is not yet in it.
        processor: As it goes with the finished model.
        lora: LoRA of the stage before, which this one goes on with.
    """

    model: PreTrainedModel
    processor: VideoChat2Processor
    lora: Lora | None = None


def network_config(options: StageOptions) -> PreTrainedConfig:
    """Configuration of the network that is trained, from the folders that are named, else of the released sizes.

    Raises:
        ConfigurationError: A folder holds another model than this stage goes on from.
        ModelLoadError: A folder holds no configuration.
    """
    own = {"videochat": VideoChatConfig, "retrieval": VideoChat2RetrievalConfig}.get(options.family, VideoChat2Config)
    before = None if options.model is None else _read_config(options.model)
    if before is not None and not isinstance(before, own) and not _is_predecessor(options, before):
        raise ConfigurationError(
            f"{options.model} holds a {before.model_type} model, stage {options.stage} of {options.family} goes on "
            f"from {_predecessor(options)}; give its folder with model"
        )
    config: Any
    if isinstance(before, own):
        config = before
        if own is VideoChat2Config and config.family != options.family:
            raise ConfigurationError(
                f"{options.model} is of the family {config.family}, the stage is of {options.family}; choose "
                f"--stage videochat2-{config.family}-stage{options.stage}, or give another model"
            )
    else:
        fields: dict[str, Any] = {}
        if options.network is not None:
            fields = _read_json(options.network)
        elif before is not None:  # stage 1, from which a chat model begins
            fields = {
                "vision_config": before.vision_config.to_dict(),
                "qformer_config": before.qformer_config.to_dict(),
            }
            fields["vision_layer_norm_eps"] = before.vision_layer_norm_eps
        if own is not VideoChat2RetrievalConfig:
            fields["text_config"] = _text_config(options)
        if own is VideoChat2Config:
            fields["family"] = options.family
        try:
            config = own(**{name: value for name, value in fields.items() if name != "model_type"})
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{options.network or options.model} is no network: {_reason(error)}") from error
    _adapt(config, options)
    return config


def start_network(options: StageOptions) -> Start:
    """The network with the weights of the stages before; only what the stage adds is drawn at random (by ``seed``).

    Raises:
        ConfigurationError: A source is not named, or holds another model.
        ModelLoadError: A source is missing or incomplete.
    """
    _check_sources(options)
    config = network_config(options)
    torch.manual_seed(options.seed)
    model = (_first_network if options.model is None else _next_network)(config, options)
    lora = None if options.model is None else load_adapter(options.model)
    if lora is not None and lora.rank != options.lora_rank:
        raise ConfigurationError(
            f"{options.model} has LoRA of rank {lora.rank}, lora_rank is {options.lora_rank}; set lora_rank to "
            f"{lora.rank}, or merge LoRA into that model before"
        )
    if options.stage == 4 and lora is None:
        log.warning("%s has its LoRA merged; a new one begins from nothing", options.model)
    return Start(model, _processor(config, options), lora)


def build_empty(config: Any, language_dtype: torch.dtype) -> PreTrainedModel:
    """The network on the meta device, where it takes no memory."""
    with torch.device("meta"):
        model = _MODELS[type(config)](config)
    if hasattr(model, "language_model"):
        model.language_model.to(language_dtype)
    return model


def _adapt(config: Any, options: StageOptions) -> None:
    """What the stage changes in the configuration of the network."""
    config.vision_config.num_frames = options.num_frames
    if (
        options.family == "videochat"
    ):  # its positions are learned for one size; its Q-Former is frozen, and drops nothing
        if config.vision_config.image_size != options.image_size:
            raise ConfigurationError(
                f"image_size is {options.image_size}, the tower of this VideoChat is made for "
                f"{config.vision_config.image_size}; set image_size to that"
            )
    else:
        config.vision_config.image_size = options.image_size
        config.qformer_config.hidden_dropout_prob = options.qformer_dropout
        config.qformer_config.attention_probs_dropout_prob = options.qformer_dropout
        config.qformer_config.drop_path_rate = options.qformer_drop_path
    if isinstance(config, VideoChat2RetrievalConfig):
        config.contrastive_weight = options.contrastive_weight
        config.matching_weight = options.matching_weight
        config.caption_weight = options.caption_weight
    if isinstance(config, VideoChat2Config):
        reads = options.stage > 2
        if reads and not config.qformer_config.text_input and options.retrieval_model is not None:
            words = _read_config(options.retrieval_model).qformer_config
            config.qformer_config.vocab_size = words.vocab_size
            config.qformer_config.max_position_embeddings = words.max_position_embeddings
        config.qformer_config.text_input = reads


def _predecessor(options: StageOptions) -> str:
    if options.family == "videochat":
        return "stage 1 of VideoChat (videochat-7b-stage1, or a converted VideoChat)"
    if options.stage == 2:
        return "stage 1 of VideoChat2 (videochat2-stage1, or the converted umt_l16_qformer.pth)"
    return f"stage {options.stage - 1} of {options.family} (videochat2-{options.family}-stage{options.stage - 1})"


def _is_predecessor(options: StageOptions, config: PreTrainedConfig) -> bool:
    return options.stage == 2 and options.family != "videochat" and isinstance(config, VideoChat2RetrievalConfig)


def _check_sources(options: StageOptions) -> None:
    """Raise when a stage would begin without what it is built on."""
    needed: list[str] = []
    if options.model is None and options.stage == 1:
        needed = ["tower", "blip2", "language_model"] if options.family == "videochat" else ["tower", "bert"]
    lacking = [name for name in needed if getattr(options, name) is None]
    if lacking:
        raise ConfigurationError(
            f"stage 1 of {options.family} begins from {', '.join(needed)}; set {' and '.join(lacking)}, or model to go "
            "on from a whole one"
        )
    if options.model is None and options.stage > 1:
        raise ConfigurationError(
            f"stage {options.stage} of {options.family} goes on from {_predecessor(options)}; "
            "give its folder with model"
        )
    if (
        options.model is not None
        and _is_predecessor(options, _read_config(options.model))
        and not options.language_model
    ):
        raise ConfigurationError(f"stage 2 of {options.family} brings the language model in; set language_model")


def _text_config(options: StageOptions) -> PreTrainedConfig:
    if options.language_model is not None:
        return language_model_config(options.language_model)
    fields = dict(options.text_config)
    try:
        return AutoConfig.for_model(fields.pop("model_type", "llama"), **fields)
    except ValueError as error:
        raise ConfigurationError(f"text_config is none of a language model: {_reason(error)}") from error


def _read_config(folder: str) -> Any:
    if not (Path(folder) / "config.json").is_file():
        raise ModelLoadError(f"no model at {folder} (a folder with config.json is needed); check the path")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelLoadError(f"{folder} holds no model of ours ({_reason(error)}); give that of a stage") from error


def _reason(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _read_json(path: str) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} is no config.json ({error}); give that of a network") from error
    return fields


# Weights


def _first_network(config: Any, options: StageOptions) -> PreTrainedModel:
    """The network of a first stage, out of the files of others."""
    assert options.tower is not None
    model = _drawn(config)
    if isinstance(config, VideoChat2RetrievalConfig):
        assert options.bert is not None
        _fill(model, {**umt_parts(options.tower, model), **bert_parts(options.bert, model)})
        return model
    assert options.blip2 is not None
    assert options.language_model is not None
    _fill(model, released_parts(options.tower, options.blip2, model, config.vision_config))
    model.language_model = _language_model(options, load_language_model(options.language_model))
    return model


def _next_network(config: Any, options: StageOptions) -> PreTrainedModel:
    """The network of a stage that goes on from a folder."""
    assert options.model is not None
    tensors = without_adapter(read_checkpoint(options.model))
    joined = _is_predecessor(options, _read_config(options.model))
    wants_text = getattr(config.qformer_config, "text_input", False)
    model = _drawn(config)
    names = {name for name in model.state_dict() if not name.startswith(_LANGUAGE_MODEL)}
    given = {name: tensors[name] for name in names & tensors.keys()}
    new = names - tensors.keys()
    if joined:  # stage 2 draws its own queries and the projection
        new -= {"extra_query_tokens", "projection.weight", "projection.bias"}
    text = {name for name in new if name.startswith("qformer.")} if wants_text else set()
    if text:
        if options.retrieval_model is None:
            raise ConfigurationError(
                f"the Q-Former in {options.model} reads no text; stage {options.stage} takes its text branch from "
                "stage 1: set retrieval_model to the folder of it"
            )
        others = read_checkpoint(options.retrieval_model)
        given |= {name: others[name] for name in text & others.keys()}
        new -= others.keys() & text
    if new:
        raise ModelLoadError(
            f"{options.model} lacks {len(new)} tensors that stage {options.stage} of {options.family} goes on from, "
            f"such as {min(new)}; it goes on from {_predecessor(options)}"
        )
    _fill(model, given)
    if joined:
        assert options.language_model is not None
        loaded = load_language_model(options.language_model, options.family)
        model.language_model = _language_model(options, loaded)
    elif hasattr(model, "language_model"):
        weights = {
            name.removeprefix(_LANGUAGE_MODEL): value.to(getattr(torch, options.language_model_dtype))
            for name, value in tensors.items()
            if name.startswith(_LANGUAGE_MODEL)
        }
        model.language_model = _language_model(options, _language_network(config.text_config, weights, options.model))
    return model


def _drawn(config: Any) -> PreTrainedModel:
    """The network with random weights in float32, all but its language model, which is left out."""
    network = _MODELS[type(config)]
    if not hasattr(config, "text_config"):
        return network(config)
    whole = config.text_config
    # No layers and one word: what is drawn here for the language model is thrown away.
    sizes: dict[str, Any] = {"num_hidden_layers": 0, "vocab_size": 1}
    sizes |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    if getattr(whole, "layer_types", None) is not None:
        sizes["layer_types"] = []
    config.text_config = type(whole)(**{**whole.to_dict(), **sizes})
    try:
        model = network(config)
    finally:
        config.text_config = whole
    model.language_model = None
    model.config = config
    return model


def _fill(model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into parameters of the same names, in float32.

    Raises:
        ModelLoadError: A shape is not that of the network.
    """
    places = model.state_dict()
    for name, value in tensors.items():
        if value.shape != places[name].shape:
            raise ModelLoadError(
                f"{name} has the shape {tuple(value.shape)}, the network {tuple(places[name].shape)}; give weights and "
                "configuration that belong together"
            )
        with torch.no_grad():
            places[name].copy_(value)


def _language_network(config: PreTrainedConfig, weights: Mapping[str, Tensor], source: str) -> PreTrainedModel:
    network = AutoModelForCausalLM._model_mapping[type(config)]
    model, info = network.from_pretrained(
        None, config=config, state_dict=dict(weights), dtype="auto", output_loading_info=True
    )
    if info["missing_keys"]:
        raise ModelLoadError(
            f"{source} lacks {len(info['missing_keys'])} tensors of its language model, such as "
            f"{min(info['missing_keys'])}; convert or download it again"
        )
    loaded: PreTrainedModel = model
    return loaded


def _language_model(options: StageOptions, model: PreTrainedModel) -> PreTrainedModel:
    return model.to(getattr(torch, options.language_model_dtype))


# The processor


def pixel_statistics(options: StageOptions) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of red, green and blue that pixels are normalised with."""
    return (IMAGENET_MEAN, IMAGENET_STD) if options.statistics == "imagenet" else (CLIP_MEAN, CLIP_STD)


def tiling(options: StageOptions) -> TilingOptions | None:
    """How frames are cut up, if they are."""
    return TilingOptions(max_tiles=options.max_tiles) if options.max_tiles else None


def _processor(config: Any, options: StageOptions) -> VideoChat2Processor:
    """Tokenizers and numbers of the finished model; it is shown what it was trained on."""
    mean, std = pixel_statistics(options)
    shown: dict[str, Any] = {"image_mean": mean, "image_std": std, "still_mean": None, "still_std": None}
    shown["image_size"] = options.image_size
    before: VideoChat2Processor | None = None
    if options.model is not None:
        before = AutoProcessor.from_pretrained(options.model, local_files_only=True)
    if options.family == "retrieval":
        words = bert_tokenizer(str(options.bert or BERT)) if before is None else before.qformer_tokenizer
        chosen = ProcessorOptions(**{**RETRIEVAL_OPTIONS, **shown, "max_text_length": options.max_text_length})
        return VideoChat2Processor(None, words, chosen)
    name = "mistral_hd" if options.max_tiles else options.family
    shown |= {
        "num_visual_tokens": config.num_visual_tokens,
        "tiling": tiling(options),
        "timestamps": not options.captions and released_recipe(options.family, options.stage).timestamps,
    }
    released = ProcessorOptions.released(name, **shown)
    tokenizer = None if before is None else before.tokenizer
    if tokenizer is None:
        assert options.language_model is not None
        tokenizer = language_tokenizer(Path(options.language_model))
    if options.family == "videochat":
        return VideoChatProcessor(tokenizer, None, released)
    if not config.qformer_config.text_input:
        return VideoChat2Processor(tokenizer, None, released)
    words = None if before is None else before.qformer_tokenizer
    if words is None and options.retrieval_model is not None:
        words = AutoProcessor.from_pretrained(options.retrieval_model, local_files_only=True).qformer_tokenizer
    longest = min(released.max_text_length, config.qformer_config.max_position_embeddings)
    return VideoChat2Processor(tokenizer, words, replace(released, max_text_length=longest))
