"""A release as one readable HTML file: no script, nothing loaded, in English or Chinese.

Made from the document alone, so whoever holds the document can make the page and compare.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bedside_core.errors import InvalidInputError
from bedside_core.release_document import ESTIMANDS
from bedside_core.release_picture import Row, escaped, release_picture, rows_of, said
from bedside_core.release_words import UNPROTECTED_ZH, WORDS, Words
from bedside_core.statistics.query import BOUND_HITS

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;color:#1b2733;background:#fff;max-width:60rem;
margin:2rem auto;padding:0 1rem}h1{font-size:1.6rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .6rem;
border-bottom:1px solid #d5dbe1;vertical-align:top}td.n,th.n{text-align:right;
font-variant-numeric:tabular-nums}tr.grey td{color:#5c6670}code{overflow-wrap:anywhere}
svg{width:100%;height:auto}.notice{background:#eef3f8;padding:.7rem 1rem}
"""


def release_page(document: Mapping[str, Any], language: str = "en") -> str:
    """Return the page of a checked document.

    Args:
        document: as `release_check.check_document` returns it.
        language: en or zh.

    Raises:
        InvalidInputError: another language.
    """
    if language not in WORDS:
        raise InvalidInputError(f"a page is in one of {', '.join(WORDS)}")
    t = WORDS[language]
    names = ", ".join(one["name"] for one in document["statistics"])
    body = [
        f"<h1>{t['title']}: {escaped(names)}</h1>",
        f'<p class="notice">{t["notice"]}</p>',
        *(picture for _, picture in pictures(document, language)),
        _table(document, t),
        _figures(document, t),
        _grades(document, t),
        _truncation(document, t),
        _question(document, t),
        _price(document, t),
        _list(t["unprotected"], unprotected(document, language)),
        f"<h2>{t['verify']}</h2><p>{t['verify_words']}</p>",
        "<pre>bedside-edge privacy verify release.json --vkey log.vkeys</pre>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="{t["language"]}"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{t['title']}: {escaped(names)}</title><style>{_STYLE}</style></head><body>",
            *body,
            "</body></html>",
            "",
        ]
    )


def pictures(document: Mapping[str, Any], language: str = "en") -> list[tuple[str, str]]:
    """Return (title, SVG) of the counts, of shares and rates, and of the other figures."""
    t = WORDS[language]
    counted = {
        one["cell"]: one
        for one in document["cells"]
        if (one["counts"] and one["cell"] != BOUND_HITS) or "rank_error" in one
    }
    figures = rows_of(document["figures"])
    groups = (
        (t["values"], rows_of(counted)),
        (t["figures"], tuple(one for one in figures if _is_share(one))),
        (t["figures"], tuple(one for one in figures if not _is_share(one))),
    )
    return [
        (title, release_picture(rows, title, t["not_reported"])) for title, rows in groups if rows
    ]


def unprotected(document: Mapping[str, Any], language: str) -> list[str]:
    """Return what the document says is not protected, in words."""
    if language != "zh":
        return [one["text"] for one in document["unprotected"]]
    return [UNPROTECTED_ZH[one["code"]] for one in document["unprotected"]]


def noise_words(noise: Mapping[str, Any]) -> str:
    """Return the law of the noise with its parameters on one line."""
    rest = ", ".join(f"{name} {_said(noise[name])}" for name in sorted(noise) if name != "law")
    return f"{noise['law']}: {rest}"


def _said(parameter: object) -> str:
    """Return a parameter; where each grade has its own, all of them with their grades."""
    if not isinstance(parameter, Mapping):
        return str(parameter)
    return " / ".join(f"{parameter[grade]} ({grade})" for grade in sorted(parameter))


def price_words(price: Mapping[str, Any]) -> str:
    """Return a spend as epsilon and rho on one line."""
    delta = f"{price['delta']:.0e}".replace("e-0", "e-")
    return f"epsilon {price['epsilon']:.4g} (delta {delta}), rho {price['rho']:.6g}"


def estimand_words(document: Mapping[str, Any], language: str) -> str:
    """Return what the release counts, in words."""
    by_text = {text: weight for weight, text in ESTIMANDS.items()}
    return WORDS[language][str(by_text[document["estimand"]])]


def interval_words(one: Mapping[str, Any], t: Words) -> str:
    """Return an interval, or the rank error of a quantile, or that there is none."""
    if "rank_error" in one:
        return f"{t['rank']}: {said(float(round(one['rank_error'])))}"
    if one["low"] is None or one["high"] is None:
        return t["not_reported"]
    return f"{said(one['low'])} ... {said(one['high'])}"


def _is_share(row: Row) -> bool:
    ends = (row.low, row.high, row.shown)
    return all(end is None or -1 <= end <= 1 for end in ends)


def _table(document: Mapping[str, Any], t: Words) -> str:
    rows = [
        (one["cell"], _or_dash(one["shown"], t), interval_words(one, t), f"{one['value']:,}")
        for one in document["cells"]
    ]
    grey = [bool(one.get("grey", False)) for one in document["cells"]]
    heads = (t["cell"], t["shown"], t["interval"], t["released"])
    note = f"<p>{t['grey']}</p>" if any(grey) else ""
    return f"<h2>{t['values']}</h2>{_rows(heads, rows, grey)}{note}"


def _figures(document: Mapping[str, Any], t: Words) -> str:
    found = document["figures"]
    if not found:
        return ""
    rows = [
        (name, _or_dash(one["shown"], t), interval_words(one, t)) for name, one in found.items()
    ]
    missing = any(one["shown"] is None for one in found.values())
    note = f"<p>{t['why_not_reported']}</p>" if missing else ""
    grey = [bool(one["grey"]) for one in found.values()]
    heads = (t["cell"], t["shown"], t["interval"])
    return f"<h2>{t['figures']}</h2>{_rows(heads, rows, grey)}{note}"


def _grades(document: Mapping[str, Any], t: Words) -> str:
    """One table for each grade: its own noise, its own price."""
    found = document.get("grades")
    if not found:
        return ""
    heads = (t["cell"], t["shown"], t["interval"])
    parts = [f"<h2>{t['grades']}</h2><p>{t['grades_words']}</p>"]
    for one in found:
        rows = [
            (cell["cell"], _or_dash(cell["shown"], t), interval_words(cell, t))
            for cell in one["cells"]
        ]
        grey = [bool(cell["grey"]) for cell in one["cells"]]
        words = f"{t['grade']} {one['grade']}: {price_words(one['cost'])}"
        parts.append(f"<h3>{escaped(words)}</h3>{_rows(heads, rows, grey)}")
    return "".join(parts)


def _truncation(document: Mapping[str, Any], t: Words) -> str:
    held = document["truncation"]
    words = t["truncation_words"].format(c=held["c"])
    hits = held.get("patients_at_the_bound")
    told = (
        t["not_reported"] if hits is None else f"{said(hits['shown'])}, {interval_words(hits, t)}"
    )
    return f"<h2>{t['truncation']}</h2><p>{words} {told}</p>"


def _question(document: Mapping[str, Any], t: Words) -> str:
    one, language = document["identity"], "zh" if t["language"] != "en" else "en"
    arrivals = f"{one['arrivals']['starts']} ... {one['arrivals']['ends']} ms"
    night = f", {one['night'] + 1} / {one['nights']}" if one["nights"] > 1 else ""
    facts = (
        (t["dataset"], f"{one['dataset']}, {one['epoch']}"),
        (t["purpose"], one["purpose"]),
        (t["arrivals"], arrivals),
        (t["schedule"], one["schedule"] + night),
        (t["estimand"], estimand_words(document, language)),
        (t["noise"], noise_words(document["noise"])),
        (t["snapshot"], one["snapshot"]),
        (t["policy"], one["policy"]),
        (t["fingerprint"], one["fingerprint"]),
    )
    return f"<h2>{t['question']}</h2>{_facts(facts)}"


def _price(document: Mapping[str, Any], t: Words) -> str:
    facts = [(t["cost"], price_words(document["cost"]))]
    facts += [
        (f"{t['left']}: {one['kind']} {one['name']}", price_words(one["left"]))
        for one in document["remaining"]
    ]
    views = document["not_the_gate"]
    other = "; ".join(f"{name} {value:.4g}" for name, value in views.items())
    note = f"<p>{t['not_gate']}: {escaped(other)}</p>" if views else ""
    return f"<h2>{t['price']}</h2>{_facts(facts)}{note}"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    lines = "".join(
        f"<tr><th>{escaped(name)}</th><td><code>{escaped(text)}</code></td></tr>"
        for name, text in facts
    )
    return f"<table>{lines}</table>"


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]], grey: Sequence[bool]) -> str:
    top = "".join(f"<th{_side(place)}>{word}</th>" for place, word in enumerate(heads))
    lines = []
    for cells, dull in zip(rows, grey, strict=True):
        row = "".join(f"<td{_side(at)}>{escaped(text)}</td>" for at, text in enumerate(cells))
        lines.append(f'<tr class="grey">{row}</tr>' if dull else f"<tr>{row}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _side(place: int) -> str:
    return ' class="n"' if place else ""


def _list(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>"


def _or_dash(value: float | None, t: Words) -> str:
    return t["not_reported"] if value is None else said(value)
