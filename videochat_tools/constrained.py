"""Replies that keep to a form: at each step only tokens are left that the form's grammar can go on from.

The grammar is compiled and followed by llguidance, which knows nothing of the model; so a model that was never trained
for tools can make no invalid call either. A form is also brought to its end: a token is taken only if what must follow
it still fits the tokens that are left, so a call is never cut in the middle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videochat_tools.errors import MissingDependencyError, UnsupportedSchemaError
from videochat_tools.tool_calling import ReplyForm

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from torch import Tensor

_LONGEST_END = 4096  # tokens; more than any form needs that ends at all
# What ends a value soonest, tried in this order: a quotation mark ends a string, or opens one that the next one ends.
_ENDING = ('"', "}", "]", ",", "0")


def check_form(form: ReplyForm) -> None:
    """Make sure that a form can be kept.

    Raises:
        MissingDependencyError: llguidance is not installed.
        UnsupportedSchemaError: a schema cannot be expressed.
    """
    matcher = _library().LLMatcher
    called = [tool for tool in form.tools if tool.name in form.callable_names]
    parts = {f"the arguments of tool {tool.name!r}": tool.parameters for tool in called}
    if form.schema is not None:
        parts["the answer"] = form.schema
    for what, schema in parts.items():  # one by one, to name the one that cannot
        if problem := matcher.validate_grammar(matcher.grammar_from_lark(ReplyForm(schema=schema).grammar())):
            raise UnsupportedSchemaError(
                f"the JSON schema of {what} cannot be expressed ({_reason(problem)}); "
                "use types, enums, objects, arrays, anyOf, numeric bounds and simple patterns"
            )


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingDependencyError("llguidance", "tool-calling", "calling tools and structured output") from error
    return llguidance


def _reason(problem: str) -> str:
    """The first line of llguidance's message, without the place in a grammar that the user never saw."""
    lines = [line.strip() for line in problem.splitlines()]
    first = lines[0].partition("failed to compile JSON schema: ")[2] or lines[0]
    details = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join([first.partition(". Enable")[0].rstrip(":"), *details])


class Vocabulary:
    """A tokenizer as the grammar sees it: the bytes of every token."""

    def __init__(self, tokenizer: Any) -> None:
        _library()
        from llguidance.hf import from_tokenizer

        try:
            self.tokens: LLTokenizer = from_tokenizer(tokenizer)
        except Exception as error:  # a tokenizer of another kind; the library raises what its parts raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise UnsupportedSchemaError(
                f"calls cannot be spelled with a {type(tokenizer).__name__} ({reason}); "
                "use a model with a fast tokenizer"
            ) from error
        spelled = [self.tokens.decode_bytes([token]) for token in range(self.tokens.vocab_size)]
        self.lengths = np.array([len(piece) for piece in spelled])
        by_bytes = {piece: token for token, piece in reversed(list(enumerate(spelled)))}
        self.ending = [by_bytes[sign.encode()] for sign in _ENDING if sign.encode() in by_bytes]

    def matcher(self, grammar: str) -> LLMatcher:
        """A grammar at its start."""
        library = _library().LLMatcher
        matcher: LLMatcher = library(self.tokens, library.grammar_from_lark(grammar))
        _check(matcher)
        return matcher


class Guide:
    """Keeps one reply to a form.

    Args:
        vocabulary: of the model.
        form: what the reply may be.
        room: tokens that the reply may have.
        stop_ids: tokens with which the model ends what it says; in the middle of a form they cannot.

    Raises:
        UnsupportedSchemaError: the form does not fit ``room`` tokens.
    """

    def __init__(self, vocabulary: Vocabulary, form: ReplyForm, room: int, stop_ids: frozenset[int]) -> None:
        self.active = True
        """Whether the form still decides: a reply in plain words is free from its first word on."""
        self._vocabulary = vocabulary
        self._words = form.words
        self._stop_ids = stop_ids
        self._matcher = vocabulary.matcher(form.grammar())
        self._end = self._shortest_end(self._matcher)
        # Words end anywhere, but where a call is allowed there must be room for one.
        end = self._shortest_end(vocabulary.matcher(replace(form, words=False).grammar())) if form.words else self._end
        if end is not None and len(end) > room:
            raise UnsupportedSchemaError(
                f"a reply of the asked-for form has at least {len(end)} tokens, but {room} are left for it; "
                "raise max_tokens, drop earlier turns, or ask for less"
            )

    @property
    def finished(self) -> bool:
        """Whether nothing can follow what was made."""
        return self.active and self._matcher.is_stopped()

    def allowed(self, logits: Tensor) -> Tensor:
        """Logits [vocabulary] of the next token, with minus infinity for those that the form does not allow."""
        allowed = np.zeros(logits.shape[-1], bool)
        known = self._allowed(self._matcher)[: len(allowed)]
        allowed[: len(known)] = known
        if not self._words:
            allowed[sorted(self._stop_ids - {self._vocabulary.tokens.eos_token})] = False
        return logits.masked_fill(logits.new_tensor(~allowed).bool(), float("-inf"))

    def take(self, token: int, left: int) -> int:
        """The token that is made: the one given, or one that ends the form where the given one would not let it end.

        Args:
            token: an allowed one.
            left: tokens that may still be made, this one included.
        """
        if token in self._stop_ids:
            return token
        ahead = self._matcher.deep_copy()
        ahead.consume_token(token)
        _check(ahead)
        if self._words and self._in_words(token):
            self.active = False
            return token
        end = self._shortest_end(ahead)
        if self._end is not None and (end is None or len(end) > left - 1):
            if not self._end:  # it could end here, and there is no room for more
                return self._vocabulary.tokens.eos_token
            token, end = self._end[0], self._end[1:]
            ahead = self._matcher.deep_copy()
            ahead.consume_token(token)
        self._matcher, self._end = ahead, end
        return token

    def _in_words(self, token: int) -> bool:
        """Whether a token is a word, of a reply that has none yet; from a brace on it is a call."""
        said = self._vocabulary.tokens.decode_bytes([token]).strip()
        if said.startswith(b"{"):
            self._words = False
        return bool(said) and self._words

    def _allowed(self, matcher: LLMatcher) -> npt.NDArray[np.uint8]:
        """1 for each token that may come next [vocabulary]."""
        return np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")

    def _shortest_end(self, matcher: LLMatcher) -> list[int] | None:
        """Tokens that bring a form to its end, few if not the fewest; None where none are found (odd patterns)."""
        ahead = matcher.deep_copy()
        made: list[int] = []
        while not ahead.is_accepting():
            forced = ahead.compute_ff_tokens()
            if not forced:
                allowed = self._allowed(ahead)[: len(self._vocabulary.lengths)]
                forced = [next((token for token in self._vocabulary.ending if allowed[token]), -1)]
                if forced == [-1]:
                    forced = [int((self._vocabulary.lengths * allowed).argmax())]
            made += forced
            if not ahead.consume_tokens(forced) or len(made) > _LONGEST_END:
                return None
        return made


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():
        raise UnsupportedSchemaError(
            f"the form of the reply is too complex ({_reason(matcher.get_error())}); use simpler schemas"
        )
