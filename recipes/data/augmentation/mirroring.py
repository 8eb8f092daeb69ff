"""Whether a mirrored image is still of its class, as far as the names of the classes tell."""

import re
from collections.abc import Sequence

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
SIDES = {"left": "right", "right": "left"}


def why_not_mirrored(labels: Sequence[str]) -> str | None:
    """Return why images of these classes should not be mirrored; None where nothing says so.

    Mirrored letters and digits are others or none: so where half of the names are a letter or a
    number. And where two names differ in left and right alone, each would be shown as the other.
    """
    words = {label: words_of(label) for label in labels}
    signs = [label for label, found in words.items() if is_sign(found)]
    if 2 * len(signs) >= len(labels) > 0:
        return f"classes are letters or numbers ({', '.join(signs[:3])} ...)"
    known = {tuple(found): label for label, found in words.items()}
    for label, found in words.items():
        other = known.get(tuple(SIDES.get(word, word) for word in found))
        if other not in (None, label):
            return f"{label} would become {other}"
    return None


def words_of(label: str) -> list[str]:
    """Return the words and numbers of a name in lower case: of turnLeft_2 turn, left and 2."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return re.findall(r"[^\W\d_]+|\d+", spaced.lower())


def is_sign(words: Sequence[str]) -> bool:
    """Whether the words of a name are one letter or one number, as 7, b or nine are."""
    return len(words) == 1 and (len(words[0]) == 1 or words[0].isdigit() or words[0] in NUMBERS)
