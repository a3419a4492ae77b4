"""Prompt templates of the released chat models, character for character.

A message is raw text: a visual stands in it as ``<VideoHere>`` or ``<ImageHere>`` between its tags. The helpers write
such texts in each family's own way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["PLACEHOLDER", "TEMPLATES", "ChoicePrompt", "Message", "PromptTemplate"]

PLACEHOLDER = re.compile(r"<VideoHere>|<ImageHere>")

Message = tuple[Literal["human", "assistant"], str | None]
"""Role and raw text. An assistant's text of None, as the last message, is the answer to be written."""


@dataclass(frozen=True, slots=True)
class ChoicePrompt:
    """The words around a multiple-choice question. Defaults are those of the released MVBench notebooks.

    Attributes:
        system: System text, which the Q-Former is told as well, in place of an instruction.
        repeat_system: Put the system text before the question too (MVBench; EgoSchema and Video-MME do not).
        question_end: Follows the options.
        answer_start: First words of the answer, given to the model.
        return_start: What of them belongs to the prediction.
    """

    system: str = (
        "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
        "objects, and the action and pose of persons. Based on your observations, select the best option that "
        "accurately addresses the question.\n"
    )
    repeat_system: bool = True
    question_end: str = "\nOnly give the best option."
    answer_start: str = "Best option:("
    return_start: str = "("

    def messages(self, template: PromptTemplate, question: str, *, video: bool = True) -> list[Message]:
        """Messages of a video and a question with its options, for ``render_chat``.

        Render them with ``system=choice.system, answer_start=choice.answer_start``. Without ``video`` the question
        stands alone, to see how far guessing goes.
        """
        text = template.question_text((self.system if self.repeat_system else "") + question + self.question_end)
        if not video:
            return [("human", text)]
        visual = template.visual_text("video")
        return [("human", visual), ("human", text)] if template.visual_alone else [("human", visual + text)]

    def prediction(self, answer: str) -> str:
        """The option that an answer names: its first line, after what of its start was given to the model."""
        return self.return_start + answer.strip().split("\n")[0]


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
