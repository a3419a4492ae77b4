"""Things a narrator may say over a scene: short sentences of everyday words, each about one topic."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

__all__ = ["PHRASES", "SPEAKERS", "Sentence", "narrate", "random_words"]

_PEOPLE = (
    "anna ben clara david emma frank grace henry iris jack karen leo maria nina oscar paul rosa sam tina victor"
).split()
_PLACES = (
    "harbour bridge market station library garden museum school kitchen forest castle airport hotel theatre "
    "hospital beach river mountain island village"
).split()
_THINGS = (
    "ticket lamp bicycle letter umbrella camera piano clock ladder basket window carpet candle bottle hammer "
    "blanket guitar mirror pencil suitcase kettle map wallet jacket rope spoon telescope wagon pillow shovel"
).split()
_ADJECTIVES = "old new heavy light broken clean quiet narrow warm cold empty famous hidden strange simple".split()
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_SUBJECTS = "rain snow music dinner breakfast training weather traffic homework football".split()

# Words of real speech and of questions, so that the tokenizer spells them in few pieces.
_COMMON = (
    "the a an of to and in is it you that he was for on are with as his they at be this have from or had by hot but "
    "some what there we can out other were all your when up use word how said each she which do their time if will "
    "way about many then them would write like so these her long make thing see him two has look more day could go "
    "come did my sound no most number who over know water than call first people may down side been now find any new "
    "work part take get place made live where after back little only round man year came show every good me give our "
    "under name very through just form much great think say help low line before turn cause same mean differ move "
    "right boy old too does tell sentence set three want air well also play small end put home read hand port large "
    "spell add even land here must big high such follow act why ask men change went light kind off need house picture "
    "try us again animal point mother world near build self earth father head stand own page should country found "
    "answer grow study still learn plant cover food sun four thought let keep eye never last door between city tree "
    "cross since hard start might story saw far sea draw left late run while press close night real life few stop "
    "open seem together next white children begin got walk example ease paper often always those both mark book "
    "until mile river car feet care second group carry took rain eat room friend began idea fish mountain north once "
    "base hear horse cut sure watch color face wood main fellow americans not"
).split()

PHRASES = (_PEOPLE, _PLACES, _THINGS, _ADJECTIVES, _NUMBERS, _DAYS, _SUBJECTS, _COMMON)


SPEAKERS = tuple(name.capitalize() for name in _PEOPLE)


@dataclass(frozen=True, slots=True)
class Sentence:
    """Something said and the word it is about."""

    text: str
    topic: str


def narrate(rng: Random, taken: set[str] | None = None) -> Sentence:
    """One sentence whose topic is not among ``taken`` (the topic is then added to it)."""
    for _ in range(50):
        sentence = _draw(rng)
        if taken is None or sentence.topic not in taken:
            break
    if taken is not None:
        taken.add(sentence.topic)
    return sentence


def _draw(rng: Random) -> Sentence:
    person, place, thing = rng.choice(_PEOPLE), rng.choice(_PLACES), rng.choice(_THINGS)
    adjective, number, day, subject = (rng.choice(words) for words in (_ADJECTIVES, _NUMBERS, _DAYS, _SUBJECTS))
    forms = (
        (f"the {place} opens at {number} on {day}", place),
        (f"the {place} closes at {number}", place),
        (f"{person} lost the {thing} near the {place}", thing),
        (f"please bring the {adjective} {thing} on {day}", thing),
        (f"we need {number} boxes for the {place}", place),
        (f"{person} likes the {adjective} {thing}", thing),
        (f"the {subject} starts at {number} in the {place}", subject),
        (f"{person} walks to the {adjective} {place} every {day}", place),
        (f"there will be {subject} on {day}", subject),
        (f"the {thing} is {adjective} and the price is {number}", thing),
        (f"{person} found {number} coins under the {thing}", thing),
        (f"remember that the {place} is {adjective}", place),
    )
    return Sentence(*rng.choice(forms))


def random_words(rng: Random, count: int) -> str:
    """Words without sense, some of them made up letter by letter: practice in copying what was said."""
    words = []
    for _ in range(count):
        if rng.random() < 0.2:
            words.append("".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 6))))
        else:
            words.append(rng.choice(rng.choice(PHRASES)))
    return " ".join(words)
