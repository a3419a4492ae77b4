"""One reply of a chat model in the making: token by token, into pieces of text."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videochat_tools.engine import ReplySettings
from videochat_tools.errors import ContextTooLongError
from videochat_tools.models.modeling_chat import CACHE_NAME
from videochat_tools.prefix_cache import Place

if TYPE_CHECKING:
    from videochat_tools.constrained import Guide
    from videochat_tools.generation import ChatNetwork


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as the language model takes it.

    Attributes:
        ids: of all its tokens; those at visual places mean nothing.
        visual_mask: which places are visual.
        rows: clip tokens of the visual places, in order [1, visual places, width]; None without any.
        places: what stands where.
    """

    ids: list[int]
    visual_mask: list[bool]
    rows: Tensor | None
    places: list[Place]

    def embeddings(self, model: Any, start: int) -> Tensor:
        """Embeddings [1, tokens from ``start`` on, width] of the language model."""
        device = model.device
        ids, mask = self.ids[start:], self.visual_mask[start:]
        embeds: Tensor
        if self.rows is None or not any(mask):
            embeds = model.embed_prompt(torch.tensor([ids], device=device), None, None)
        else:
            rows = self.rows[:, sum(self.visual_mask[:start]) :].to(device)
            embeds = model.embed_prompt(torch.tensor([ids], device=device), torch.tensor([mask], device=device), rows)
        return embeds


class Reply:
    """A reply in the making. Iterate once for its pieces; afterwards the counts are final.

    Attributes:
        input_tokens: tokens of the prompt, those of clips included.
        video_tokens: how many of them are clip tokens.
        prefilled_tokens: how many tokens had to be run before the reply; the others were kept from earlier turns.
        output_tokens: tokens made, those of a stop sequence included.
        finish_reason: ``"stop"`` when the model, a stop sequence or the form of the reply ended it, ``"length"`` at
            the limit of tokens.
    """

    def __init__(
        self, network: ChatNetwork, prompt: Prompt, settings: ReplySettings, room: int, guide: Guide | None = None
    ) -> None:
        self.input_tokens = len(prompt.ids)
        self.video_tokens = sum(prompt.visual_mask)
        self.prefilled_tokens = 0
        self.output_tokens = 0
        self.finish_reason = "length"
        self._network = network
        self._prompt = prompt
        self._settings = settings
        self._room = room
        self._guide = guide

    def __iter__(self) -> Iterator[str]:
        with closing(self._tokens()) as tokens:  # what was run is kept, however early somebody stops listening
            yield from self._pieces(tokens)

    def loss_of(self, text: str) -> tuple[float, bool]:
        """How unlikely a text is as this reply. Nothing is made or kept.

        Returns:
            The mean negative log-likelihood of its tokens (natural logarithm), and whether each of them is the
            likeliest at its place, so that a greedy reply begins like this.

        Raises:
            ContextTooLongError: The text does not fit the model after the prompt.
        """
        network = self._network
        ids = network.token_ids(text)
        if len(self._prompt.ids) + len(ids) > network.context_tokens:
            raise ContextTooLongError(
                f"prompt and answer have {len(self._prompt.ids)} and {len(ids)} tokens, but the model takes "
                f"{network.context_tokens}; drop earlier turns or clips"
            )
        wanted = torch.tensor(ids, device=network.device)
        with torch.inference_mode(), network.running:
            answer = network.model.embed_prompt(wanted[None], None, None)
            embeds = torch.cat([self._prompt.embeddings(network.model, 0), answer], dim=1)
            logits = network.model(inputs_embeds=embeds, use_cache=False, logits_to_keep=len(ids) + 1).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits.float(), wanted)
        return float(loss), bool((logits.argmax(-1) == wanted).all())

    def _pieces(self, tokens: Iterator[int]) -> Iterator[str]:
        guide, network = self._guide, self._network
        stops = (*network.stop_texts, *self._settings.stop)
        made: list[int] = []
        shown = ""
        for token in tokens:
            self.output_tokens += 1
            if token in network.stop_ids:
                self.finish_reason = "stop"
                break
            made.append(token)
            text = network.text(made)
            # Where a form is prescribed, a stop sequence may be part of what is said; the form itself ends the reply.
            heard = () if guide is not None and guide.active else stops
            cut = min((place for stop in heard if (place := text.find(stop)) >= 0), default=None)
            if cut is not None:
                self.finish_reason = "stop"
                yield from _new(text[:cut].strip(), shown)
                return
            sure = text[: len(text) - _unsure(text, heard)].strip()
            yield from _new(sure, shown)
            shown = max(shown, sure, key=len)
            if guide is not None and guide.finished:
                self.finish_reason = "stop"
                break
        yield from _new(network.text(made).strip(), shown)

    def _tokens(self) -> Generator[int, None, None]:
        """Ids one by one, each drawn after the one before it was run."""
        settings, network, guide = self._settings, self._network, self._guide
        generator = torch.Generator(device=network.device)
        if settings.temperature > 0:
            if settings.seed is None:
                generator.seed()
            else:
                generator.manual_seed(settings.seed)
        kept = network.prefix_cache
        places = list(self._prompt.places)
        length, cache = kept.take(places) if settings.reuse else (0, kept.new())
        self.prefilled_tokens = len(places) - length
        try:
            step = {"inputs_embeds": self._embeddings(length)}
            for number in range(self._room):
                if number and kept.restarts(len(places) - 1, 1):
                    cache, step = kept.new(), {"inputs_embeds": self._everything(places)}
                    self.prefilled_tokens += len(places)
                with torch.inference_mode(), network.running:
                    output = network.model(**step, cache=cache, use_cache=True, logits_to_keep=1)
                    cache = output[CACHE_NAME]
                    logits = output.logits[0, -1].float()
                    if guide is not None and guide.active:
                        token = guide.take(_pick(guide.allowed(logits), settings, generator), self._room - number)
                    else:
                        token = _pick(logits, settings, generator)
                places.append(token)
                yield token
                step = {"input_ids": torch.tensor([[token]], device=network.device)}
        finally:
            if settings.reuse:
                kept.keep(places, cache)

    def _embeddings(self, start: int) -> Tensor:
        with torch.inference_mode():
            return self._prompt.embeddings(self._network.model, start)

    def _everything(self, places: Sequence[Place]) -> Tensor:
        """Embeddings of the prompt and of what was made so far."""
        made = torch.tensor([places[len(self._prompt.ids) :]], device=self._network.device)
        with torch.inference_mode():
            return torch.cat([self._embeddings(0), self._network.model.embed_prompt(made, None, None)], dim=1)


def _new(text: str, shown: str) -> Iterator[str]:
    if len(text) > len(shown):
        yield text[len(shown) :]


def _unsure(text: str, stops: Sequence[str]) -> int:
    """How many last characters must wait: they may begin a stop sequence, or be half of a character."""
    broken = len(text) - len(text.rstrip("\ufffd"))
    begun = (n for stop in stops for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n]))
    return max(broken, max(begun, default=0))


def _pick(logits: Tensor, settings: ReplySettings, generator: torch.Generator) -> int:
    """The next id from logits [vocabulary]."""
    if settings.temperature == 0:
        return int(logits.argmax())
    chances, ids = (logits / settings.temperature).softmax(-1).sort(descending=True)
    # Dropped are ids that only come after `top_p` is already reached; the likeliest always stays.
    chances = chances.masked_fill(chances.cumsum(-1) - chances >= settings.top_p, 0.0)
    return int(ids[torch.multinomial(chances, 1, generator=generator)])
