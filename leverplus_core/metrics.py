"""VQA accuracy, as the official evaluator counts it, and the protocol of a metric."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal, get_args

from leverplus_core.errors import DataError

_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')


_ARTICLES = frozenset({"a", "an", "the"})


_NUMBER_WORDS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip


_PERIOD = re.compile(r"\.(?!\d)")


_MOST_PERIODS = 32  # the reference passes re.UNICODE (32) where `re.sub` takes the count


_COMMA_IN_NUMBER = re.compile(r"\d,\d")


# Words whose contracted form only puts one apostrophe back, written as that form.
_APOSTROPHES = (
    "ain't", "aren't", "can't", "could've", "couldn't", "didn't", "doesn't", "don't", "hadn't", "hasn't",
    "haven't", "he'd", "he's", "how'd", "how'll", "how's", "isn't", "it'd", "it'll", "ma'am", "mightn't",
    "might've", "mustn't", "must've", "needn't", "not've", "o'clock", "oughtn't", "shan't", "should've",
    "shouldn't", "somebody'll", "somebody's", "someone'd", "someone'll", "someone's", "something'd",
    "something'll", "that's", "there'd", "there're", "there's", "they'd", "they'll", "they're", "they've",
    "'twas", "wasn't", "we've", "weren't", "what'll", "what're", "what's", "what've", "when's", "where'd",
    "where's", "where've", "who'd", "who'll", "who's", "who've", "why'll", "why're", "why's", "won't",
    "would've", "wouldn't", "y'all", "you'd", "you'll", "you're", "you've",
)  # fmt: skip


# Double contractions: form -> the spellings of it that the reference mends.
_DOUBLE = {
    "couldn't've": ("couldn'tve", "couldnt've"),
    "hadn't've": ("hadnt've", "hadn'tve"),
    "he'd've": ("hed've", "he'dve"),
    "it'd've": ("itd've", "it'dve"),
    "mightn't've": ("mightnt've", "mightn'tve"),
    "'ow's'at": ("ow's'at", "'ows'at", "'ow'sat"),
    "she'd've": ("shed've", "she'dve"),
    "shouldn't've": ("shouldnt've", "shouldn'tve"),
    "somebody'd've": ("somebodyd've", "somebody'dve"),
    "someone'd've": ("someoned've", "someone'dve"),
    "something'd've": ("somethingd've", "something'dve"),
    "there'd've": ("thered've", "there'dve"),
    "they'd've": ("theyd've", "they'dve"),
    "we'd've": ("wed've", "we'dve"),
    "who'd've": ("whod've", "who'dve"),
    "wouldn't've": ("wouldnt've", "wouldn'tve"),
    "y'all'll": ("yall'll", "y'allll"),
    "y'all'd've": ("yall'd've", "y'alld've", "y'all'dve"),
    "you'd've": ("youd've", "you'dve"),
}


CONTRACTIONS: dict[str, str] = {
    **{form.replace("'", ""): form for form in _APOSTROPHES},
    **{spelling: form for form, spellings in _DOUBLE.items() for spelling in spellings},
    "somebody'd": "somebodyd",  # so in the reference
}
"""Spelling -> contracted form; the reference's table but for its identities and its keys in capitals (never met)."""


@lru_cache(maxsize=1 << 16)
def normalize(answer: str) -> str:
    """An answer as the official evaluator compares it: lower case, no punctuation or articles, numbers as digits."""
    given = answer.replace("\n", " ").replace("\t", " ").strip()
    comma_in_number = _COMMA_IN_NUMBER.search(given) is not None
    text = given
    for mark in _PUNCTUATION:
        vanishes = comma_in_number or f"{mark} " in given or f" {mark}" in given
        text = text.replace(mark, "" if vanishes else " ")
    text = _PERIOD.sub("", text, count=_MOST_PERIODS)
    words = (_NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def comparable(answer: str) -> str:
    """An answer as answers are compared: normalized, or in lower case where nothing is left of it ("A", "?").

    The official evaluator normalizes nothing where all annotators agree, so that "A" is right where ten people said
    "A" (and "Yes" is wrong where they said "yes"); where they do not, it takes all answers of which nothing is left for
    one. Here such an answer is equal to itself alone, in both cases.
    """
    return normalize(answer) or answer.strip().lower()


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Official VQA accuracy in [0, 1] of `prediction` given all annotators' `answers` (ten in VQA).

    For each annotator min(1, matches among the others / 3); the mean over annotators. Both sides are made `comparable`.
    An empty prediction scores 0. Raises DataError when there are no answers.
    """
    if not answers:
        raise DataError("a question without answers cannot be scored.", "Leave it out of the dataset.")
    said = comparable(prediction)
    if not said:
        return 0.0
    n = len(answers)
    matches = sum(comparable(answer) == said for answer in answers)
    # An annotator who gave this answer sees one match fewer; thirds are summed as integers, so that .6 is exactly .6.
    thirds = matches * min(3, matches - 1) + (n - matches) * min(3, matches)
    return thirds / (3 * n)


def most_frequent(answers: Sequence[str]) -> str:
    """The answer given most often, as written, blanks aside; of several, the one given first.

    Raises DataError when there is none.
    """
    given = [answer for answer in answers if answer.strip()]
    if not given:
        raise DataError("a question without answers has no most frequent one.", "Leave it out of the dataset.")
    return Counter(given).most_common(1)[0][0]


def distinct_answers(answers: Sequence[str]) -> dict[str, float]:
    """Each distinct true answer with its weight min(count / 3, 1): how much of an annotators' list agrees with it.

    Answers that are equal once normalized are one, written as it is most often (of several, as it came first). Three
    annotators make an answer count in full, as in `accuracy`; in OK-VQA, whose lists are five answers doubled, two.
    Raises DataError when there is none.
    """
    spellings: dict[str, list[str]] = {}
    for answer in answers:
        if said := comparable(answer):
            spellings.setdefault(said, []).append(answer)
    if not spellings:
        raise DataError("a question without answers has no distinct ones.", "Leave it out of the dataset.")
    return {most_frequent(given): min(len(given) / 3, 1.0) for given in spellings.values()}


def text_similarity(prediction: str, answers: Sequence[str]) -> float:
    """How near `prediction` comes to the nearest of `answers` as text, in [0, 1]; 1 where the two are equal.

    The ratio of matching characters (Ratcliff and Obershelp 1988, `difflib`) of both sides, normalized. Unlike the
    accuracy it tells "motor bike" from "banana" where "motorbike" is expected. 0 for an empty prediction.
    """
    said = comparable(prediction)
    if not said:
        return 0.0
    return max((SequenceMatcher(None, said, answer).ratio() for answer in set(map(comparable, answers))), default=0.0)


TaskName = Literal["vqa"]
Reference = Literal["most_frequent", "all"]
"""Which true answers' probability counts: the one given most often, or every distinct one by how often it was given."""


@dataclass(frozen=True)
class Task:
    """`metric` names the score in tables; `prompt` holds what the task changes of `PromptSettings`' defaults.

    `score` and `text_similarity` of (prediction, answers) are in [0, 1]; `references` (answers) gives, by the setting
    `scoring.reference`, the true answers whose probability is measured, with their weights above 0; answers whose
    `normalize` is equal are the same answer.
    """

    metric: str
    score: Callable[[str, Sequence[str]], float]
    references: Mapping[Reference, Callable[[Sequence[str]], Mapping[str, float]]]
    text_similarity: Callable[[str, Sequence[str]], float]
    normalize: Callable[[str], str]
    prompt: Mapping[str, object] = field(default_factory=dict)


TASKS: Mapping[TaskName, Task] = {
    "vqa": Task(
        "VQA accuracy",
        accuracy,
        {"most_frequent": lambda answers: {most_frequent(answers): 1.0}, "all": distinct_answers},
        text_similarity,
        comparable,
    ),
}


assert set(TASKS) == set(get_args(TaskName))
