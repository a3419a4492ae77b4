"""The two tokenizers of the nano, built from the vocabulary of its world.

The released models take theirs from BERT (Q-Former) and LLaMA (language model); these have the same interfaces and a
few hundred entries. Letters and bytes are in both, so that any text can be read and any text can be quoted.
"""

from __future__ import annotations

import string
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from videochat_tools.context import NOT_FOUND, SPEECH_LABEL
from videochat_tools.models.videochat2.prompts import ChoicePrompt
from videochat_tools.training.world.language import VERBS, caption
from videochat_tools.training.world.narration import PHRASES, narrate
from videochat_tools.training.world.questions import KINDS, ask, describe
from videochat_tools.training.world.scene import sample_scene

__all__ = ["build_llm_tokenizer", "build_qformer_tokenizer", "seen_words", "world_words"]

_CHOICE = ChoicePrompt()
# One token each, wherever they stand: the marks of the released prompt templates.
_TEMPLATE_MARKS = ("###", "<Video>", "</Video>", "<Image>", "</Image>")
_PUNCTUATION = ".,:;?!'\"()[]<>/\\-–—#%&+=*_@|~^`{}$…“”’"


def seen_words(seed: int = 0) -> set[str]:
    """The words of captions and questions: those that stand for something to be seen."""
    rng, texts = Random(seed), list[str]()
    for _ in range(3000):
        scene = sample_scene(rng, held_out=None)
        texts += [caption(rng, scene).text, describe(rng, scene).question]
        for kind in KINDS:
            question = ask(rng, scene, kind)
            if question is not None:
                texts += [question.question, question.answer]
    texts += [" ".join(pair) for verbs in VERBS.values() for pair in verbs]
    return _words(texts)


def world_words(seed: int = 0) -> list[str]:
    """Every word of the world, in a fixed order: those of questions, captions and narration."""
    rng = Random(seed)
    texts = [NOT_FOUND, SPEECH_LABEL, "Human Assistant Video Image watch the video and answer"]
    texts += [" ".join(words) for words in PHRASES] + [narrate(rng).text for _ in range(2000)]
    texts += ["said say says speaker mentioned mentions talk talks talking someone something anything they about at"]
    texts += ["who whom whose was were did done doing before after from to until between during same other both than"]
    texts += ["Question Options", _CHOICE.system, _CHOICE.question_end, _CHOICE.answer_start]
    return sorted(seen_words(seed) | _words(texts))


def _words(texts: list[str]) -> set[str]:
    for sign in _PUNCTUATION:
        texts = [text.replace(sign, " ") for text in texts]
    return {word for text in texts for word in text.split()}


def build_qformer_tokenizer(max_length: int = 64) -> BertTokenizerFast:
    """A lower-casing WordPiece tokenizer with BERT's special tokens and ``[DEC]`` as the last id."""
    words = sorted({word.lower() for word in world_words()} | set("0123456789") | {f"{n:02d}" for n in range(60)})
    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_PUNCTUATION]
    pieces += [piece for piece in letters if piece not in words] + words + [f"##{letter}" for letter in letters]
    pieces += [f"##{ending}" for ending in ("ed", "er", "es", "ing", "ly", "th", "st", "en", "on", "an", "or", "al")]
    pieces += ["[DEC]"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizerFast(
        vocab=vocabulary,
        do_lower_case=True,
        model_max_length=max_length,
        truncation_side="left",
        bos_token="[DEC]",
    )


def build_llm_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-fallback BPE tokenizer in LLaMA's manner whose words of the world are one token each.

    Times are pairs of digits, so that a timecode is copied in few steps.
    """
    space, marks = "▁", ["<unk>", "<s>", "</s>", "<pad>", *_TEMPLATE_MARKS]
    vocabulary: dict[str, int] = {mark: number for number, mark in enumerate(marks)}
    for number in range(256):
        vocabulary[f"<0x{number:02X}>"] = len(vocabulary)
    for letter in [space, *string.ascii_letters, *string.digits, *_PUNCTUATION]:
        vocabulary.setdefault(letter, len(vocabulary))
    for number in range(100):
        vocabulary.setdefault(f"{number:02d}", len(vocabulary))
    for word in ("Human", "Assistant", "Video", "Image", "Here"):
        vocabulary.setdefault(word, len(vocabulary))
    for word in world_words():
        if word.isascii():  # after a space, and at the start of a quotation
            vocabulary.setdefault(space + word, len(vocabulary))
            vocabulary.setdefault(word, len(vocabulary))
    for word in (word for words in PHRASES for word in words):  # as speech recognition writes them
        vocabulary.setdefault(space + word.capitalize(), len(vocabulary))
        vocabulary.setdefault(word.capitalize(), len(vocabulary))
    # Without merges: a word of the vocabulary is one token, every other one is spelled.
    model = models.BPE(
        vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True, fuse_unk=False, ignore_merges=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=space, prepend_scheme="first", split=True),
            pre_tokenizers.Digits(individual_digits=False),
            pre_tokenizers.Split(Regex(r"[^\w▁]"), behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in _TEMPLATE_MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )
