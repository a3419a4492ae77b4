"""Prompt templates of the released chat models, character for character.

A message is raw text: a visual stands in it as ``<VideoHere>`` or ``<ImageHere>`` between its tags. The helpers write
such texts in each family's own way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["PLACEHOLDER", "TEMPLATES", "Message", "PromptTemplate"]

PLACEHOLDER = re.compile(r"<VideoHere>|<ImageHere>")

Message = tuple[Literal["human", "assistant"], str | None]
"""Role and raw text. An assistant's text of None, as the last message, is the answer to be written."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """How one family writes a conversation. The defaults are those of vicuna.

    Attributes:
        human: Mark of the user's messages.
        assistant: Mark of the model's messages.
        separator: Follows the system text.
        before_text: Between mark and text of a message.
        after_text: After the text of a message.
        before_answer: Between mark and text of an answer whose start is given.
        open_answer: Follows the mark of an answer to be written.
        visual_end: Ends the message of a visual.
        visual_alone: Whether a visual is a message of its own; otherwise it opens the question.
        question_end: Ends a question.
        answer_end: Ends a finished answer.
        stop_texts: What the model writes when it is done.
    """

    human: str = "Human"
    assistant: str = "Assistant"
    separator: str = "###"
    before_text: str = ": "
    after_text: str = "###"
    before_answer: str = ": "
    open_answer: str = ":"
    visual_end: str = "\n"
    visual_alone: bool = True
    question_end: str = "\n"
    answer_end: str = ""
    stop_texts: tuple[str, ...] = ("###",)

    def render(self, messages: Sequence[Message], *, system: str = "", answer_start: str | None = None) -> str:
        """The prompt of a conversation.

        Args:
            messages: Raw messages in order.
            system: Text put before all messages.
            answer_start: First words of the answer to be written, such as ``Best option:(``. The last message must
                then be an assistant's without text, or it is added.
        """
        if answer_start is not None and (not messages or messages[-1] != ("assistant", None)):
            messages = [*messages, ("assistant", None)]
        parts = [system, self.separator]
        for role, text in messages:
            mark = self.human if role == "human" else self.assistant
            if text is not None:
                parts += [mark, self.before_text, text, self.after_text]
            elif answer_start is not None:
                parts += [mark, self.before_answer, answer_start]
            else:
                parts += [mark, self.open_answer]
        return "".join(parts)

    def visual_text(self, kind: Literal["video", "image"] = "video", caption: str = "") -> str:
        """Raw text of one visual: a whole message where ``visual_alone``, else the start of the question.

        A caption (timecodes, what is said) follows the tags, where the released models have their timestamps.
        """
        name = kind.capitalize()
        words = f" {caption}" if caption else ""
        if not self.visual_alone and kind == "image" and not caption:
            return f"<{name}><{name}Here></{name}> "  # phi3 puts images on the line of the question
        return f"<{name}><{name}Here></{name}>{words}{self.visual_end}"

    def question_text(self, question: str) -> str:
        """Raw text of a question."""
        return question + self.question_end

    def answer_text(self, answer: str) -> str:
        """Raw text of an answer given earlier."""
        return answer.strip() + self.answer_end

    def clean_answer(self, text: str) -> str:
        """What the model said, from decoded text that may run past its end or repeat the mark of its role."""
        for stop in self.stop_texts:
            text = text.split(stop)[0]
        mark = f"{self.assistant}{self.open_answer}"
        return text.split(mark)[-1].strip()


TEMPLATES = {
    "vicuna": PromptTemplate(),
    "mistral": PromptTemplate(
        human="[INST]",
        assistant="[/INST]",
        separator="",
        before_text=" ",
        after_text=" ",
        before_answer=" ",
        open_answer="",
        visual_end=" [/INST]",
        question_end="",
        answer_end="</s>",
        stop_texts=("</s>",),
    ),
    "phi3": PromptTemplate(
        human="<|user|>\n",
        assistant="<|end|>\n<|assistant|>",
        separator="",
        before_text="",
        after_text="",
        before_answer="",
        open_answer="",
        visual_end="\n",
        visual_alone=False,
        question_end="",
        answer_end="<|end|>",
        stop_texts=("<|end|>", "<|endoftext|>"),
    ),
}
"""Template by ``VideoChat2Config.family``."""
