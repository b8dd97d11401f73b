"""The pages' words in Chinese and English: one catalogue each, the same keys in both.

A language is asked for by a cookie, else by Accept-Language, else it is English. Texts of patients
and of the model are never translated.
"""

import importlib.resources
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

COOKIE: Final = "bedside-language"
LANGUAGES: Final[Mapping[str, str]] = {"en": "English", "zh": "中文"}
DEFAULT: Final = "en"
_TAG: Final = re.compile(
    r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]*)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?))?\s*"
)


class Words:
    """One language's texts by dotted key; a missing key is an error, never an empty place."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self.html_language = {"zh": "zh-Hans"}.get(language, language)
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """Return the text of `key` with `{name}` places filled in; KeyError if there is none."""
        text = self._texts[key]
        return text.format_map(values) if values else text

    def count(self, key: str, number: int, **values: object) -> str:
        """Return the text for a number of things: `key.one` for 1, else `key.other`."""
        form = "one" if number == 1 else "other"
        return self(f"{key}.{form}", number=number, **values)

    def either(self, key: str, otherwise: str, **values: object) -> str:
        """Return the text of `key`, or of `otherwise` where `key` has none."""
        return self(key if key in self._texts else otherwise, **values)

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    @property
    def keys(self) -> frozenset[str]:
        """Every key of the catalogue."""
        return frozenset(self._texts)


@cache
def words(language: str) -> Words:
    """Return the catalogue of a language of `LANGUAGES`."""
    folder = importlib.resources.files("bedside_edge.web") / "catalogues"
    document = tomllib.loads((folder / f"{language}.toml").read_text(encoding="utf-8"))
    return Words(language, _flat(document))


def choose(cookie: str, accepted: str) -> str:
    """Return the language for a request.

    Args:
        cookie: value of the language cookie, or empty.
        accepted: the Accept-Language header (RFC 9110, 12.5.4), or empty.
    """
    if cookie in LANGUAGES:
        return cookie
    found: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted.split(",")[:32]):
        tag = _TAG.fullmatch(part)
        if tag and tag[1].lower() in LANGUAGES:
            found.append((-float(tag[2] or 1), place, tag[1].lower()))
    found = [one for one in found if one[0]]  # weight 0: not wanted
    return min(found)[2] if found else DEFAULT


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, str):
            texts[prefix + name] = value
        else:
            texts |= _flat(value, f"{prefix}{name}.")
    return texts
