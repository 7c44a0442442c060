"""Where tokens stand in a text, for tokenizers that do not say so (those that are Python's: PhoBERT, BERTweet, ESM, CANINE …).

What enters: a text and its tokens in order, as ``tokenize`` gives them. What leaves: a place for each, or None where none can
be told; and which tokens go on with the word before them. A place is what a reader would mark.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from enum import Enum

Place = tuple[int, int]

_FAR = 200  # characters that a token is looked for after others that were not found


class Style(Enum):
    """How a vocabulary writes parts of words."""

    PLAIN = "a token is what it says"
    HASHES = "##ing goes on with a word"
    AT_SIGNS = "play@@ is gone on with"
    WORD_END = "ing</w> ends a word"
    BAR = "▁play begins a word"

    @classmethod
    def of(cls, vocabulary: Mapping[str, int]) -> Style:
        """By the first mark that a word of the vocabulary has; words are at least a letter beside it."""
        for token in vocabulary:
            if len(token) > 4 and token.endswith("</w>"):
                return cls.WORD_END
            if len(token) > 2 and token.endswith("@@"):
                return cls.AT_SIGNS
            if len(token) > 2 and token.startswith("##"):
                return cls.HASHES
            if len(token) > 1 and token.startswith("▁"):
                return cls.BAR
        return cls.PLAIN

    def surface(self, token: str) -> str:
        """The token without its marks."""
        match self:
            case Style.HASHES:
                return token.removeprefix("##")
            case Style.AT_SIGNS:
                return token.removesuffix("@@")
            case Style.WORD_END:
                return token.removesuffix("</w>")
            case Style.BAR:
                return token.replace("▁", " ").strip() or " "
            case Style.PLAIN:
                return token

    def goes_on(self, token: str, before: str) -> bool | None:
        """Whether ``token`` is of the word of the token before it; None where the vocabulary does not say."""
        match self:
            case Style.HASHES:
                return token.startswith("##")
            case Style.AT_SIGNS:
                return before.endswith("@@")
            case Style.WORD_END:
                return not before.endswith("</w>")
            case Style.BAR:
                return not token.startswith("▁")
            case Style.PLAIN:
                return None


def align(text: str, tokens: Sequence[str], style: Style, unknown: str | None = None) -> list[Place | None]:
    """The place of each token.

    1. A token stands where the one before it ended, after space: as it is, or else without case and accents.
    2. One that does not stand there (an unknown word, a normalised sign) is lost; the next is looked for a little further on.
    3. Lost tokens between two that were found have the words between them, if there are as many, else no place.

    >>> align("Zoë was in Łódź.", ["zoe", "was", "in", "[UNK]", "."], Style.HASHES, "[UNK]")
    [(0, 3), (4, 7), (8, 10), (11, 15), (15, 16)]
    """
    reader = _Reader(text)
    places: list[Place | None] = []
    lost: list[int] = []
    position = 0
    for number, token in enumerate(tokens):
        found = reader.find(style.surface(token), position, folded=token != unknown, far=bool(lost))
        places.append(found)
        if found is None:
            lost.append(number)
            continue
        _give_back(text, places, lost, position, found[0])
        lost, position = [], found[1]
    _give_back(text, places, lost, position, len(text))
    return places


class _Reader:
    """A text with its folded letters, and of which character each letter is."""

    def __init__(self, text: str) -> None:
        self._text = text
        letters: list[str] = []
        self._origins: list[int] = []
        self._before = [0]  # letters before each character
        for place, character in enumerate(text):
            folded = _fold(character)
            letters += folded
            self._origins += [place] * len(folded)
            self._before.append(len(letters))
        self._letters = "".join(letters)

    def find(self, word: str, position: int, *, folded: bool, far: bool) -> Place | None:
        """Rules 1 and 2."""
        if not word:
            return None
        if not word.isspace():
            while position < len(self._text) and self._text[position].isspace():
                position += 1
        if self._text.startswith(word, position):
            return position, position + len(word)
        wanted = _fold(word)
        if not folded or not wanted:
            return None
        first = self._before[position]
        start = self._letters.find(wanted, first, first + len(wanted) + (_FAR if far else 0))
        if start < 0:
            return None
        stop = self._origins[start + len(wanted) - 1] + 1
        while stop < len(self._text) and not _fold(self._text[stop]):  # accents that stand by themselves
            stop += 1
        return self._origins[start], stop


def _give_back(text: str, places: list[Place | None], lost: Sequence[int], start: int, stop: int) -> None:
    """Rule 3: the words of ``text[start:stop]`` to the lost tokens."""
    if not lost or start >= stop:
        return
    words: list[Place] = []
    for word in text[start:stop].split():
        begin = text.index(word, words[-1][1] if words else start)
        words.append((begin, begin + len(word)))
    if len(words) == len(lost):
        for number, place in zip(lost, words, strict=True):
            places[number] = place
    elif len(lost) == 1 and words:
        places[lost[0]] = (words[0][0], words[-1][1])


def _fold(text: str) -> str:
    """Without case, accents and what nobody sees."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    kept = (letter for letter in plain if unicodedata.category(letter) not in ("Mn", "Cf"))
    return unicodedata.normalize("NFKD", "".join(kept).casefold())
