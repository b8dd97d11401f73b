"""What the demonstration promises, each judged from what was seen: values in, verdicts out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bedside_edge.demo.samples import ANALYSED

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A promise, whether it held, and what was seen."""

    promise: str
    held: bool
    seen: str


def judge(
    studies: Iterable[Json], repeated: Json, alarms: int, plain: Mapping[str, int]
) -> list[Claim]:
    """Return every claim of the demonstration.

    Args:
        studies: rows made by `Story.deliver`.
        repeated: what `Story.repeat` returned.
        alarms: how many alarms the box raised.
        plain: what `search_plain` returned.
    """
    rows = list(studies)
    read = [row for row in rows if row["expects"] == ANALYSED]
    return [
        *(_analysed(row) for row in read),
        *(_lossless_agree(row) for row in read),
        *(_one_reading_per_image(row, alarms) for row in read),
        _duplicates_known(repeated),
        _refused_with_reason([row for row in rows if row["expects"] != ANALYSED]),
        _nothing_plain(plain),
    ]


def _analysed(row: Json) -> Claim:
    value, reason = row["value"], row["reason"]
    if row["status"] == ANALYSED:
        seen = f"probability {value['probability']:.3f}, {value['decision']}"
    else:
        seen = f"{reason['code']}: {reason['detail']}"
    promise = "A frontal chest radiograph is read"
    return Claim(promise=promise, held=row["status"] == ANALYSED, seen=seen)


def _lossless_agree(row: Json) -> Claim:
    """The digits of the document, logit and saliency included, not only the rounded probability."""
    entries = (row["document"] or {}).get("images", [])
    pairs = list(zip(row["images"], entries, strict=True)) if entries else []
    whole = [(image, entry) for image, entry in pairs if image.get("lossless")]
    numbers = [
        tuple(str(entry.get(key)) for key in ("logit", "probability", "cam")) for _, entry in whole
    ]
    agree = len(whole) > 1 and len(set(numbers)) == 1 and whole[0][1].get("logit") is not None
    shown = ", ".join(f"{image['name']} {_digits(image['probability'])}" for image, _ in whole)
    promise = "Lossless encodings give equal digits and saliency"
    return Claim(promise=promise, held=agree, seen=shown)


def _one_reading_per_image(row: Json, alarms: int) -> Claim:
    same = [image for image in row["images"] if image.get("same_as")]
    seen = ", ".join(f"{image['name']} has the pixels of {image['same_as']}" for image in same)
    promise = "One UID in two encodings is read once, no alarm"
    seen = f"{seen or 'none was recognised'}; {alarms} alarms"
    return Claim(promise=promise, held=bool(same) and alarms == 0, seen=seen)


def _duplicates_known(repeated: Json) -> Claim:
    outcomes, sent = repeated["outcomes"], len(repeated["answers"])
    known = outcomes == {"duplicate": sent}
    held = known and repeated["jobs_unchanged"] and repeated["result_unchanged"]
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    seen = f"{counted}; jobs and result {'unchanged' if held else 'changed'}"
    promise = "Files sent again make no second job or result"
    return Claim(promise=promise, held=held, seen=seen)


def _refused_with_reason(rows: list[Json]) -> Claim:
    wrong = [
        f"{row['title']}: {(row['reason'] or {}).get('code', 'no reason')}, not {row['expects']}"
        for row in rows
        if row["value"] is not None or (row["reason"] or {}).get("code") != row["expects"]
    ]
    codes = sorted({row["expects"] for row in rows})
    seen = "; ".join(wrong) or f"{len(rows)} refused: {', '.join(codes)}"
    promise = "What the model must not read gets a code, no number"
    return Claim(promise=promise, held=not wrong, seen=seen)


def _nothing_plain(plain: Mapping[str, int]) -> Claim:
    held = plain["in_state"] == 0 and plain["in_sent"] > 0 and plain["files"] > 0
    seen = (
        f"{plain['needles']} names and UIDs: {plain['in_state']} times in {plain['files']} files "
        f"on disk, {plain['in_sent']} times in the files sent"
    )
    promise = "No name and no UID is on disk in the clear"
    return Claim(promise=promise, held=held, seen=seen)


def _digits(probability: float | None) -> str:
    return "none" if probability is None else f"{probability:.6f}"
