"""A language model that is shown clips: what VideoChat and VideoChat2 have in common."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, RepetitionPenaltyLogitsProcessor
from transformers import initialization as init
from transformers.generation import GenerationConfig, GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from videochat_tools.errors import UnsupportedContentError
from videochat_tools.models.loading.checkpoints import read_checkpoint
from videochat_tools.models.loading.lora import attach_lora, enable_lora, load_adapter, require_peft, without_adapter

__all__ = ["CACHE_NAME", "ClipChatModel"]

CACHE_NAME = next(field.name for field in fields(CausalLMOutputWithPast) if field.name in ("cache", "past_key_values"))
"""What transformers calls the keys and values of a language model: ``past_key_values``, from 5.24 on ``cache``."""

_PREFILL_ONLY = ("clip_tokens", "visual_mask", "pixel_values", "qformer_input_ids", "qformer_attention_mask")


class ClipChatModel(PreTrainedModel, GenerationMixin):
    """Tower, Q-Former, linear projection and language model.

    A clip becomes ``config.num_visual_tokens`` rows of the Q-Former ("clip tokens": worth caching), which the
    projection turns into embeddings that stand between those of the text. A subclass names its configuration, which has
    ``vision_config``, ``qformer_config``, ``text_config`` and ``vision_layer_norm_eps``.
    """

    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _skip_keys_device_placement = [CACHE_NAME]  # noqa: RUF012
    vision_norm_class: ClassVar[type[nn.LayerNorm]] = nn.LayerNorm

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        vision, qformer = config.vision_config, config.qformer_config
        self.vision_encoder = AutoModel.from_config(vision)
        self.vision_layernorm = self.vision_norm_class(vision.hidden_size, eps=config.vision_layer_norm_eps)
        self.query_tokens = nn.Parameter(torch.zeros(1, qformer.num_query_tokens, qformer.hidden_size))
        self.extra_query_tokens = nn.Parameter(torch.zeros(1, qformer.num_extra_query_tokens, qformer.hidden_size))
        self.qformer = AutoModel.from_config(qformer)
        self.projection = nn.Linear(qformer.hidden_size, config.text_config.hidden_size)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ClipChatModel):
            init.normal_(module.query_tokens, std=self.config.initializer_range)
            init.normal_(module.extra_query_tokens, std=self.config.initializer_range)

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings of the language model."""
        return cast(nn.Module, self.language_model.get_input_embeddings())

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the language model."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Output layer of the language model."""
        return cast(nn.Module, self.language_model.get_output_embeddings())

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the output layer of the language model."""
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        """Body of the language model, without its output layer."""
        return cast(nn.Module, self.language_model.get_decoder())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As transformers loads a model; a folder that holds a LoRA adapter needs peft, and it is an error without.

        Raises:
            MissingDependencyError: The folder holds an adapter, and peft is not installed.
        """
        require_peft(pretrained_model_name_or_path)
        folder = pretrained_model_name_or_path
        lora = None if folder is None or not Path(str(folder)).is_dir() else load_adapter(folder)
        if lora is None:
            return super().from_pretrained(folder, *args, **kwargs)
        # transformers would put the adapter on by itself, but asks for a version of PEFT that is not needed for it.
        kwargs.setdefault("config", cls.config_class.from_pretrained(folder))
        loaded = super().from_pretrained(None, *args, state_dict=without_adapter(read_checkpoint(folder)), **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if (Path(str(folder)) / GENERATION_CONFIG_NAME).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        attach_lora(model, lora)
        return loaded

    def disable_adapters(self) -> None:
        """Answer without LoRA that is kept apart."""
        enable_lora(self, False)

    def enable_adapters(self) -> None:
        """Answer with it again."""
        enable_lora(self, True)

    # Video side

    def encode_frames(self, pixel_values: Tensor) -> Tensor:
        """Tower and norm: clips [B, T, C, H, W] -> vision embeddings [B, S, D], whatever rows the tower gives."""
        features = self.vision_encoder(pixel_values).last_hidden_state
        return cast(Tensor, self.vision_layernorm(features.flatten(1, -2)))

    def get_clip_tokens(
        self,
        pixel_values: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
        *,
        vision_embeds: Tensor | None = None,
    ) -> Tensor:
        """Query rows of the Q-Former, before the projection: all that later steps need of a clip.

        Args:
            pixel_values: Normalised clips [B, T, C, H, W]; T = 1 is an image.
            qformer_input_ids: WordPiece ids of the instruction [B, L], which steers what the queries read.
            qformer_attention_mask: 1 where the instruction is real [B, L].
            vision_embeds: Result of ``encode_frames`` in place of the pixels.

        Returns:
            [B, Q, h].
        """
        if vision_embeds is None:
            if pixel_values is None:
                raise ValueError("get_clip_tokens needs pixel_values or vision_embeds")
            vision_embeds = self.encode_frames(pixel_values)
        queries = torch.cat([self.query_tokens, self.extra_query_tokens], dim=1)
        states = self.qformer(
            query_embeds=queries.expand(vision_embeds.shape[0], -1, -1),
            input_ids=qformer_input_ids,
            attention_mask=qformer_attention_mask,
            encoder_hidden_states=vision_embeds,
        ).last_hidden_state
        return cast(Tensor, states[:, : queries.shape[1]])

    def project(self, clip_tokens: Tensor) -> Tensor:
        """Clip tokens [B, Q, h] -> embeddings for the language model [B, Q, H]."""
        # The bias's type, since quantised weights are whole numbers.
        return cast(Tensor, self.projection(clip_tokens.to(self.projection.bias.dtype)))

    # Language side

    def embed_prompt(self, input_ids: Tensor, visual_mask: Tensor | None, clip_tokens: Tensor | None) -> Tensor:
        """Token embeddings [B, L, H] with the projected clip tokens put where ``visual_mask`` [B, L] is True.

        Raises:
            UnsupportedContentError: The mask has another number of places than there are clip tokens.
        """
        embeds = self.get_input_embeddings()(input_ids)
        if clip_tokens is None and visual_mask is None:
            return cast(Tensor, embeds)
        places = 0 if visual_mask is None else int(visual_mask.sum())
        given = 0 if clip_tokens is None else clip_tokens.shape[0] * clip_tokens.shape[1]
        if places != given:
            raise UnsupportedContentError(
                f"the prompt has {places} visual places, but {given} clip tokens are given; "
                "give the clips of all rows in reading order, as many as visual_mask marks"
            )
        if visual_mask is None or clip_tokens is None or places == 0:
            return cast(Tensor, embeds)
        visual = self.project(clip_tokens).to(embeds.dtype)
        return cast(Tensor, embeds.masked_scatter(visual_mask[..., None], visual))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        visual_mask: Tensor | None = None,
        clip_tokens: Tensor | None = None,
        pixel_values: Tensor | None = None,
        qformer_input_ids: Tensor | None = None,
        qformer_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any | None = None,
        cache: Any | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run the language model on text and clips.

        Args:
            input_ids: [B, L]; any valid id (such as padding) stands at visual places.
            attention_mask: 1 where a token is real [B, L].
            visual_mask: bool [B, L], True at visual places; each clip takes ``num_visual_tokens`` of them.
            clip_tokens: [clips, Q, h] of all rows in reading order.
            pixel_values: [clips, T, C, H, W] in place of ``clip_tokens``.
            qformer_input_ids: With ``pixel_values``: instruction of each clip [clips, L'].
            qformer_attention_mask: With ``pixel_values``: 1 where the instruction is real [clips, L'].
            position_ids: [B, L]; by default counted over real tokens, so that padding on the left does not shift them.
            past_key_values: Cache of the language model, as transformers called it before 5.24.
            cache: The same, as it is called since.
            inputs_embeds: [B, L, H] in place of all of the above but the mask.
            labels: [B, L], -100 where no loss is taken.
            **kwargs: Passed to the language model (``use_cache``, ``logits_to_keep``, ``output_hidden_states``, ...).

        Returns:
            The language model's output: ``loss`` with labels, ``logits`` [B, L, vocabulary], and ``CACHE_NAME``.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            if pixel_values is not None and clip_tokens is None:
                clip_tokens = self.get_clip_tokens(pixel_values, qformer_input_ids, qformer_attention_mask)
            inputs_embeds = self.embed_prompt(cast(Tensor, input_ids), visual_mask, clip_tokens)
        cache = past_key_values if cache is None else cache
        if position_ids is None and attention_mask is not None and cache is None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            labels=labels,
            **{CACHE_NAME: cache},
            **kwargs,
        )

    # Generation

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As ``GenerationMixin.generate``, with the visual inputs of ``forward``; returns prompt and new ids.

        ``pixel_values`` are turned into clip tokens once, before any expansion for beams or several answers.
        """
        pixel_values = kwargs.pop("pixel_values", None)
        qformer_ids, qformer_mask = kwargs.pop("qformer_input_ids", None), kwargs.pop("qformer_attention_mask", None)
        if pixel_values is not None and kwargs.get("clip_tokens") is None:
            kwargs["clip_tokens"] = self.get_clip_tokens(pixel_values, qformer_ids, qformer_mask)
        return super().generate(*args, **kwargs)  # type: ignore[misc]

    def _get_logits_processor(  # type: ignore[override]
        self, generation_config: Any, input_ids_seq_length: int | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As in transformers, but a repetition penalty leaves the words of the prompt alone.

        The released models are prompted with embeddings, so that the penalty can only see the answer.
        """
        processors = super()._get_logits_processor(  # type: ignore[misc]
            generation_config, input_ids_seq_length, *args, **kwargs
        )
        own = kwargs.get("logits_processor") or ()  # the user's, which stay as they are
        return type(processors)(
            _AnswerRepetitionPenalty(processor.penalty, input_ids_seq_length or 0, generation_config.bos_token_id)
            if isinstance(processor, RepetitionPenaltyLogitsProcessor) and processor not in own
            else processor
            for processor in processors
        )

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Repeat every row for beams: a row's clips must stay together, and a row may have any number of them."""
        clip_tokens, visual_mask = model_kwargs.pop("clip_tokens", None), model_kwargs.get("visual_mask")
        input_ids, model_kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size,
            is_encoder_decoder,
            input_ids,  # type: ignore[arg-type]
            **model_kwargs,
        )
        if clip_tokens is not None and expand_size > 1 and visual_mask is not None:
            counts = (visual_mask.sum(dim=1) // clip_tokens.shape[1]).tolist()
            rows = clip_tokens.split(counts)
            clip_tokens = torch.cat([row for row in rows for _ in range(expand_size)])
        if clip_tokens is not None:
            model_kwargs["clip_tokens"] = clip_tokens
        return input_ids, model_kwargs

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        clip_tokens: Tensor | None = None,
        visual_mask: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Inputs of one step; the clips take part whenever their places are among the ids that are run."""
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids,  # type: ignore[arg-type]
            next_sequence_length=next_sequence_length,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        for name in _PREFILL_ONLY:
            inputs.pop(name, None)
        if clip_tokens is None or visual_mask is None:
            return cast(dict[str, Any], inputs)
        # Without a cache all ids are run at every step; with a cached prefix only the last ones are, and the clips
        # before them are in the cache.
        whole = F.pad(visual_mask, (0, input_ids.shape[1] - visual_mask.shape[1]))
        run = next_sequence_length or input_ids.shape[1]
        kept = whole.clone()
        kept[:, : input_ids.shape[1] - run] = False
        if kept.any():
            inputs["visual_mask"] = kept[:, -run:]
            inputs["clip_tokens"] = clip_tokens.flatten(0, 1)[kept[whole]][None]
        return cast(dict[str, Any], inputs)


class _AnswerRepetitionPenalty(RepetitionPenaltyLogitsProcessor):
    """Repetition penalty on the ids after the prompt, and on the BOS that transformers 4.28 began them with."""

    def __init__(self, penalty: float, prompt_length: int, bos_token_id: int | None) -> None:
        super().__init__(penalty)
        self.prompt_length = prompt_length
        self.bos_token_id = bos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Ids so far [B, L] and scores [B, vocabulary] -> scores."""
        made = input_ids[:, self.prompt_length :]
        if self.bos_token_id is not None:
            made = F.pad(made, (1, 0), value=self.bos_token_id)
        return cast(Tensor, super().__call__(made, scores))
