"""What a password may be: NIST SP 800-63B section 5.1.1.2. Length and a blocklist, nothing else.

No rule asks for capitals, digits or signs, and no password ages: both make people choose worse
ones. What is refused is what a guesser tries first.
"""

import re
import unicodedata
from typing import Final

from bedside_core.errors import WeakPasswordError

SHORTEST: Final = 12  # characters
LONGEST: Final = 256  # characters; a limit of work, not of taste

# Passwords and phrases of twelve or more characters that lists of leaked passwords begin with, and
# words a guesser at this door would try; compared after digits and signs are undone.
_COMMON: Final = frozenset(
    """
    password passwort motdepasse contrasena administrator admin root welcome willkommen letmein
    iloveyou iloveu monkey dragon sunshine princess football baseball superman batman master shadow
    trustnoone changeme changeit default secret qwerty qwertz azerty qwertyuiop qwertyuiopasdfgh
    asdfghjkl asdfgh zxcvbnm onetwothree abcdef abcdefgh abcdefghijkl abcabc login test testing
    tester guest user username demo temp temporary initial computer internet samsung google
    microsoft windows linux oracle mysql server system service support manager operator
    bedside bedsideedge hospital clinic krankenhaus radiology radiologie radiologist radiologe
    dicom pacs orthanc doctor nurse patient medical health xray ctscan workstation privacy
    officer auditor vendor woaini mima zhongguo yiyuan fangshe
    correcthorsebatterystaple tobeornottobe thequickbrownfox maytheforcebewithyou
    mypassword thisismypassword passwordpassword adminadmin letmeinplease nopassword
    summer winter spring autumn fall january february march april june july august september
    october november december monday tuesday wednesday thursday friday saturday sunday
    """.split()  # noqa: SIM905  one word a line would be a page
)
_UNDONE: Final = str.maketrans("013457@$!|", "oieastasil")  # what people write for letters
_ROWS: Final = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
    "qazwsxedcrfvtgbyhnujm",
)
_WORDS: Final = 3  # more words than this make a phrase of their own
_ENDS: Final = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_YEAR: Final = re.compile(r"(19|20)\d\d")


def normal(password: str) -> str:
    """Return the password as it is hashed: one form for what looks the same on two keyboards."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, *words: str) -> str:
    """Return the normalised password.

    Args:
        password: as typed.
        words: what it must not be made of: login name, name of the person.

    Raises:
        WeakPasswordError: too short, too long, common, a row of keys, or made of those words.
    """
    chosen = normal(password)
    if len(chosen) < SHORTEST:
        raise WeakPasswordError(f"a password needs {SHORTEST} characters; several words do well")
    if len(chosen) > LONGEST:
        raise WeakPasswordError(f"a password has at most {LONGEST} characters")
    plain = chosen.casefold()
    if _repeats(plain) or any(_in_row(plain, row) for row in _ROWS):
        raise WeakPasswordError("this password repeats itself or follows the keyboard")
    blocked = {word for part in words for word in _letters(part)}
    if _made_of(plain, _COMMON | blocked):
        raise WeakPasswordError("this password is a common one, or made of your own name")
    return chosen


def _repeats(plain: str) -> bool:
    """Whether it is one piece of up to half its length over and over."""
    return any(
        (plain[:size] * (len(plain) // size + 1))[: len(plain)] == plain
        for size in range(1, len(plain) // 2 + 1)
    )


def _in_row(plain: str, row: str) -> bool:
    return any(plain in (way * 3) for way in (row, row[::-1]))


def _letters(text: str) -> set[str]:
    """The words of a name, and the name as one word."""
    folded = normal(text).casefold()
    parts = [part for part in re.split(r"[\W\d_]+", folded) if len(part) > 2]
    return {*parts, "".join(parts)} - {""}


def _made_of(plain: str, words: frozenset[str]) -> bool:
    """Whether up to three known words are left, or nothing, when digits and signs go."""
    inner = _ENDS.sub("", _YEAR.sub("", plain))
    forms = (inner, plain.translate(_UNDONE), inner.translate(_UNDONE))
    bare = [re.sub(r"[\W\d_]", "", form) for form in forms]
    return any(_fewest(form, words) <= _WORDS for form in bare)


def _fewest(text: str, words: frozenset[str]) -> int:
    """Return how few of the words make up the text, more than its length if they do not."""
    fewest = [0]
    for end in range(1, len(text) + 1):
        ways = [fewest[start] + 1 for start in range(end) if text[start:end] in words]
        fewest.append(min(ways, default=len(text) + 1))
    return fewest[-1]
