"""What a question is looking for: the picture it describes and the words that would be said.

Video encoders are trained on captions, full-text search on words that occur. A question is neither, so its frame
is taken off first::

    what colour is the ring that spins?            picture: the ring spins
    in which direction does the red circle move?   picture: the red circle moves
    what is said about the harbour?                words: harbour
    what is said when the green star spins?        picture: the green star spins
    what happens after the green star spins?       whatever comes after the picture: the green star spins

A plain description is left as it is. English only; other languages are searched as written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Query", "Relation", "analyse", "content_words", "without_anchor", "without_moment"]

Relation = Literal["after", "before"]


@dataclass(frozen=True, slots=True)
class Query:
    """One question, taken apart.

    ``visual`` is the text to embed (empty: nothing to look for), ``speech`` are the words to look for in the
    transcripts (empty: none), ``asks_speech`` says that the answer is something said. With an ``anchor`` all this
    is looked for right after or before what the anchor describes; where nothing is described, whatever is there.
    """

    text: str
    visual: str
    speech: tuple[str, ...]
    asks_speech: bool
    anchor: Query | None = None
    relation: Relation | None = None  # of what is looked for to the anchor

    @property
    def described(self) -> str:
        """All that is described as seen, the anchor's part too."""
        return " ".join(filter(None, (self.visual, "" if self.anchor is None else self.anchor.visual)))

    @property
    def in_one_scene(self) -> str:
        """What is looked for and its anchor as a caption of one scene would put it."""
        if self.anchor is None:
            return self.visual
        return f"{self.visual} {self.relation} {self.anchor.text}" if self.visual else self.anchor.text


_MOMENT = re.compile(
    r"(what (?:is|was) (?:said|mentioned)|what (?:do|does|did) .+? say|how many .+? (?:are there|can be seen)) "
    r"(?:when|while|as) .+",
    re.I,
)


def without_moment(question: str) -> str:
    """``what is said?`` for ``what is said when the green star spins?``: what is left to ask once the moment is found.

    Meant for a model that is shown only the moment; a question that names none is returned as it is.
    """
    match = _MOMENT.fullmatch(question.strip().rstrip("?. "))
    return f"{match[1]}?" if match else question


_STOP_WORDS = frozenset(
    "a about after all am an and any are as at be because been before being both but by can could did do does doing "
    "down during each few for from had has have having he her here hers him his how i if in into is it its itself "
    "just me more most my no nor not now of off on once only or other our out over own same she should so some such "
    "than that the their them then there these they this those through to too under until up upon very was we were "
    "what when where whether which while who whom whose why will with would you your yours s t re ve ll d m "
    "happen happens happened happening".split()
)
# Words that ask for speech rather than occur in it.
_SPEECH_FRAME = frozenset(
    "say says said saying mention mentions mentioned mentioning talk talks talked talking tell tells told telling "
    "speak speaks spoke spoken speaking discuss discusses discussed hear heard speaker speakers narrator anyone "
    "anybody anything someone somebody person people man woman voice word words regarding concerning exactly".split()
)
_LEADING = re.compile(
    r"(?:please\s+)?(?:(?:can|could|would) you\s+)?(?:tell me|show me|find me|find|search for|i want to know)\s+"
    r"(?:(?:the|a|any|every) (?:part|moment|scene|place|time|clip|shot)s? (?:where|when|in which|of)\s+)?",
    re.I,
)
_IN_THE_VIDEO = re.compile(
    r"\s+(?:(?:with)?in|of|from|during)\s+(?:the|this|that|my)\s+"
    r"(?:(?:whole|entire)\s+)?(?:video|clip|film|movie|footage|recording|talk|lecture)s?$",
    re.I,
)
_INTERROGATIVE = re.compile(
    r"(?:what|which|who|whom|whose|when|where|why|how|(?:in|at|on|to|from|about) (?:what|which)|"
    r"is|are|was|were|does|do|did|has|have|can)\b",
    re.I,
)
# "says", "mentioned", "talks about": to "talk to somebody" is something seen, so some verbs need "about" or "of".
_SPEECH_VERB = re.compile(
    r"\b(?:says?|said|saying|mention(?:s|ed|ing)?|discuss(?:es|ed)?|heard|hear|told|"
    r"(?:talk(?:s|ed|ing)?|tells?|speak(?:s|ing)?|spoke|spoken)(?=.*\b(?:about|of|on)\b)|talked|spoken)\b",
    re.I,
)
_AT_THE_TIME = re.compile(r"\b(?:when|while|as|during|after|before|once|until)\s+(.+)$", re.I)


def analyse(text: str) -> Query:
    """Take a question apart."""
    plain = " ".join(text.split())
    core = plain.rstrip(" ?!.")
    asked = plain.endswith("?") or _INTERROGATIVE.match(core) is not None
    core = _LEADING.sub("", core, count=1) if _LEADING.match(core) else core
    core = _IN_THE_VIDEO.sub("", core)
    beside = _beside(text, core)
    if beside is not None:
        return beside
    if not asked and _INTERROGATIVE.match(core) is None:
        return Query(text, core, content_words(core), asks_speech=False)
    said = _SPEECH_VERB.search(core)
    if said is not None:
        return _about_speech(text, core, said)
    seen = _describe(core)
    return Query(text, seen, content_words(seen), asks_speech=False)


_SOON = r"(?:(?:right|just|directly|immediately|shortly|soon|straight) )?"
# Yes-or-no questions ("does the ring spin before the star?") compare within one scene, and so do captions.
_OPEN = r"(?:what|which|who|whom|whose|where|why|how|(?:in|at|on|to|from|about) (?:what|which))\b.*?"
_BESIDE = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"(?P<target>{_OPEN}),? {_SOON}(?P<relation>after|before) (?P<anchor>.+?)\??",
        rf"{_SOON}(?P<relation>after|before) (?P<anchor>.+?), (?P<target>{_OPEN})\??",
        rf"(?:and |so )?{_SOON}(?P<relation>after|before) (?P<anchor>[^?]+)\?",  # "before the storm" is a title, too
        r"(?P<target>what) (?P<relation>follows|precedes) (?P<anchor>.+?)\??",
    )
)
# What an earlier sentence must have named, or a time: no description to search for.
_NO_ANCHOR = re.compile(r"(?:it|them|that|this|these|those|then|[\d:.]+)\b", re.I)
_NOTHING_ELSE = (
    "object objects thing things first next last then seen shown visible see come comes follow follows occur occurs "
    "going screen"
).split()  # of a question that asks for whatever is there


def _match_beside(text: str, core: str) -> re.Match[str] | None:
    core = f"{core}?" if text.rstrip().endswith("?") else core
    return next(filter(None, (pattern.fullmatch(core) for pattern in _BESIDE)), None)


def _beside(text: str, core: str) -> Query | None:
    """A question about what comes after or before something else; ``None`` for any other."""
    match = _match_beside(text, core)
    if match is None or _NO_ANCHOR.match(match["anchor"]) or not content_words(match["anchor"]):
        return None
    relation: Relation = "after" if match["relation"].lower() in ("after", "follows") else "before"
    target = analyse(f"{match.groupdict().get('target') or 'what'}?")
    seen = target.visual if content_words(target.visual, also=_NOTHING_ELSE) else ""
    empty = [*_NOTHING_ELSE, *(_SPEECH_FRAME if target.asks_speech else ())]
    words = content_words(" ".join(target.speech), also=empty)
    clause = match["anchor"]
    said = _SPEECH_VERB.search(clause)
    anchor = (
        Query(clause, clause, content_words(clause), asks_speech=False)
        if said is None
        else Query(clause, "", content_words(clause, also=_SPEECH_FRAME), asks_speech=True)
    )
    return Query(text, seen, words, target.asks_speech, anchor, relation)


def without_anchor(question: str) -> str:
    """What is asked of the rest: ``what colour is the ring?`` for ``what colour is the ring after the star spins?``.

    Meant for a model that is shown only that; a question without an anchor is returned as it is.
    """
    match = _match_beside(question, question.strip().rstrip("?. "))
    if match is None:
        return question
    target = match.groupdict().get("target") or ""
    return f"{target}?" if content_words(target, also=_NOTHING_ELSE) else "what happens in the video?"


def _about_speech(text: str, core: str, said: re.Match[str]) -> Query:
    """What is said at a moment that is described, or what is said about something."""
    moment = _AT_THE_TIME.search(core, said.end())
    if moment is None:
        words = content_words(core, also=_SPEECH_FRAME) or content_words(core)  # "who says 'a word'?"
        return Query(text, "", words, asks_speech=True)
    topic = content_words(core[said.end() : moment.start()], also=_SPEECH_FRAME)
    if _SPEECH_VERB.search(moment[1]):  # "what is said after they mention the harbour"
        return Query(text, "", topic + content_words(moment[1], also=_SPEECH_FRAME), asks_speech=True)
    return Query(text, moment[1], topic, asks_speech=True)


def content_words(text: str, also: Iterable[str] = ()) -> tuple[str, ...]:
    """The words that say what a text is about: lower case, in order, each once, without stop words.

    Args:
        text: anything a person may type; quotes and operators are no words.
        also: further words to leave out.
    """
    words = dict.fromkeys(re.findall(r"[^\W_]+", text.lower()))
    kept = [word for word in words if word not in _STOP_WORDS]
    left_out = frozenset(also)
    return tuple(word for word in kept if word not in left_out)


_THING = r"(?:colou?r|shape|size|texture|pattern|kind|type|sort|way|direction)"
# (frame, what is left of it); the first that fits is taken off. \1 and further groups are the description.
_FRAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.I), replacement)
    for pattern, replacement in (
        (r"(?:in |at )?(?:what|which) (?:direction|way) (?:does|do|did) (.+)", r"does \1"),
        (r"(?:in )?(?:what|which) (?:direction|way) (?:is|are|was|were) (.+)", r"\1"),
        (rf"(?:what|which) {_THING} (?:is|are|was|were|does|do|did|has|have|of) (.+)", r"\1"),
        (r"how (?:many|much) .*?\b(?:when|while|as|after|before|during|once) (.+)", r"\1"),
        (r"how (?:many|much) (.+?) (?:are there|is there|are visible|can be seen|do you see|are shown)(?: (.+))?",
         r"\1 \2"),
        (r"how (?:many|much) (.+)", r"\1"),
        (r"what (?:happens|happened|is happening|occurs|is shown|is seen|can be seen|do you see|is going on) "
         r"(?:when|while|as|after|before|during|once|to|with|in) (.+)", r"\1"),
        (r"(?:when|where|why|how|what|who|whom)(?:'s| is| are| was| were) (.+) doing", r"\1"),
        (r"(?:when|where|why|how|what|who|whom) (?:does|do|did) (.+) do", r"\1"),
        (r"(?:when|where|why|how|what|who|whom) (does|do|did) (.+)", r"\1 \2"),
        (r"(?:when|where|why|how|what)(?:'s| is| are| was| were) (?:there )?(.+)", r"\1"),
        (r"(?:which|what) (object|thing|one|item)s? (?:is it that |is |are |was |were )?(.+)", r"an object \2"),
        (r"who (?:is |are |was |were )?(.+)", r"a person \1"),
        (r"(?:which|what) (.+)", r"\1"),
        (r"(does|do|did) (.+)", r"\1 \2"),
        (r"(?:is|are|was|were|can) (?:there )?(?:you see )?(.+)", r"\1"),
    )
)  # fmt: skip
_VAGUE = ("first", "last", "next", "seen", "shown", "visible")  # "what happens first?" describes nothing
_RELATIVE = re.compile(r"\b(?:that|which|who) (?=\w+s\b)", re.I)  # "the ring that spins": captions say "the ring spins"
_ALTERNATIVES = re.compile(r"(?: (\w+)((?:, \w+)*),? or (\w+))$", re.I)  # "is the ring plain, striped or dotted"


def _describe(core: str) -> str:
    """The statement that a question is about; the question itself where no frame is known."""
    for pattern, replacement in _FRAMES:
        match = pattern.fullmatch(core)
        if match is None:
            continue
        left = " ".join(match.expand(replacement).split())
        auxiliary, _, rest = left.partition(" ")
        if auxiliary.lower() in ("does", "do", "did") and rest:
            left = _third_person(rest) if auxiliary.lower() == "does" else rest
        if core.split()[0].lower() in ("is", "are"):
            left = _ALTERNATIVES.sub("", left) or left
        if left.lower() in _PRONOUNS:
            return ""  # "what colour was it?" without anything before it: nothing to look for
        return _RELATIVE.sub("", left) if content_words(left, also=_VAGUE) else core
    return core


_PRONOUNS = frozenset("it that this they them he him she her".split())


_PARTICLES = frozenset(
    "into to behind in left right up down around out off on over under through with from at for away".split()
)
_DETERMINERS = frozenset("the a an his her its their".split())


def _third_person(clause: str) -> str:
    """``the red circle bump into it`` as ``the red circle bumps into it``.

    Without a parser the verb is taken to stand before the first particle, before the second article, or last.
    """
    words = clause.split()
    position = len(words) - 1
    for index, word in enumerate(words[1:], start=1):
        if word.lower() in _PARTICLES or (word.lower() in _DETERMINERS and index > 1):
            position = index - 1
            break
    verb = words[position]
    if verb.endswith(("ss", "sh", "ch", "x", "o")):
        words[position] = verb + "es"
    elif not verb.endswith("s"):
        words[position] = verb + "s"
    return " ".join(words)
