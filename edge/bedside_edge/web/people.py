"""Names and dates of people and studies as a reading room writes them."""

from typing import Final

_CJK: Final = "\u2e80"  # radicals; Chinese, Japanese and Korean letters follow
_GROUPS: Final = 3  # alphabetic, ideographic, phonetic (PS3.5 6.2.1.1)


def shown(name: str, language: str) -> str:
    """Return a DICOM person name for reading; the script of the page's language first.

    Args:
        name: a value of VR PN, components parted by `^`, groups by `=`.
        language: `zh` puts the ideographic group first, any other the alphabetic one.
    """
    groups = [*name.split("="), "", ""][:_GROUPS]
    alphabetic, ideographic = _alphabetic(groups[0]), "".join(groups[1].split("^")[:3]).strip()
    first, second = (ideographic, alphabetic) if language == "zh" else (alphabetic, ideographic)
    if first and second and first != second:
        return f"{first} ({second})"
    return first or second or _alphabetic(groups[2])


def date(value: str) -> str:
    """Return a DICOM date (VR DA, YYYYMMDD) as ISO 8601, anything else as it is."""
    if len(value) == 8 and value.isdecimal():
        return f"{value[:4]}-{value[4:6]}-{value[6:]}"
    return value


def _alphabetic(group: str) -> str:
    family, given, middle, prefix, suffix = [
        *(part.strip() for part in group.split("^")),
        *[""] * 5,
    ][:5]
    if any(
        letter >= _CJK for letter in group
    ):  # a Chinese name in the first group is written without a comma
        return "".join((family, given, middle)).strip() or group.strip()
    forenames = " ".join(part for part in (prefix, given, middle, suffix) if part)
    return ", ".join(part for part in (family, forenames) if part)
