"""What a hospital publishes about an epoch of releases: the deployments registry's form, in YAML.

The form is that of opendp/deployments-registry-data (3e9c812), tier 3. The registry refuses unknown
keys and takes dates as quoted strings, so both are held here: `registry_document` writes every key
the form lists and no other, and `yaml_text` writes all strings quoted. Beside the file goes the
signed `ledger_summary`, from which every number in it comes.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bedside_core.accounting import epsilon
from bedside_core.errors import InvalidInputError, NotFoundError
from bedside_core.ledger.entries import Scope, ScopeKind
from bedside_core.ledger.state import Ledger, Status, epoch_scope, grade_scopes
from bedside_core.planner import DELTA
from bedside_core.release_document import gaussian_view, price, rounded

SUMMARY_FORMAT = "bedside-ledger-summary/1"
SUMMARY_TYPE = "application/vnd.bedside.ledger-summary+json"  # of the DSSE envelope
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_KEY = re.compile(r"[a-z][a-z_0-9]*")
_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a hospital says about itself; nothing of it is in the ledger.

    Attributes:
        published: day of the file, YYYY-MM-DD.
        access: who gets the releases, as a word of the registry, and in a sentence.
    """

    hospital: str
    region: str
    author: str
    published: str
    intended_use: str
    access_type: str = "Interactive"
    access_details: str = "whoever the hospital's policy lists; asked again, the same answer"

    def __post_init__(self) -> None:
        texts = (self.hospital, self.region, self.author, self.intended_use)
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InvalidInputError("a publication names hospital, region, author and use")
        if not _DATE.fullmatch(self.published):
            raise InvalidInputError("a day of publication is YYYY-MM-DD")


def ledger_summary(
    ledger: Ledger, dataset: str, epoch: int, origin: str, other: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return what an epoch spent: caps, releases with price and state, and what is left.

    Args:
        ledger: as it stands.
        dataset: which one.
        epoch: its open epoch, or an earlier one.
        origin: name of the log that holds every entry.
        other: totals in other accountings, as `views` returns them.

    Raises:
        NotFoundError: the data set never had that epoch.
    """
    newest = ledger.epochs.get(dataset)
    if newest is None or not 1 <= epoch <= newest.number:
        raise NotFoundError("no epoch of that number")
    scopes = [epoch_scope(dataset, epoch), Scope(ScopeKind.LIFETIME, dataset)]
    if ledger.policy is not None and ledger.policy.grades:
        scopes += grade_scopes(dataset, epoch)
    charges = [
        one
        for one in ledger.charges.values()
        if one.reserved.dataset == dataset and one.reserved.epoch == epoch
    ]
    releases = [
        {
            "fingerprint": one.reserved.fingerprint,
            "state": str(one.status),
            "purpose": one.reserved.purpose,
            "policy": one.reserved.policy,
            "nights": one.reserved.nights,
            "answers": len(one.answers),
            "cost": price(one.reserved.cost),
        }
        for one in charges
    ]
    spent = sum(one.reserved.cost for one in charges)
    return {
        "format": SUMMARY_FORMAT,
        "log": origin,
        "dataset": dataset,
        "epoch": epoch,
        "closed": epoch < newest.number or newest.closed,
        "entries": ledger.seq,
        "policy": ledger.policy.version if ledger.policy else "",
        "scopes": [_scope(ledger, scope) for scope in scopes],
        "releases": sorted(releases, key=lambda one: str(one["fingerprint"])),
        "spent": price(spent),
        "not_the_gate": dict(other or {}),
    }


def views(
    ledger: Ledger, dataset: str, epoch: int, pure: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return totals of an epoch's spend in other accountings, epsilon at `DELTA`; never the gate.

    `gaussian-exact` is what privacy loss distributions give when every release was Gaussian.
    Where some were not it would be too small: `gaussian-plus-pure` adds their pure epsilons to the
    exact one of the Gaussian rest. `basic-composition` adds the epsilons of the releases one by
    one, as diffprivlib's accountant does without slack, each at its own delta.

    Args:
        ledger: as it stands.
        dataset: which one.
        epoch: of it.
        pure: by fingerprint, the pure epsilon of releases without Gaussian noise.
    """
    others = pure or {}
    costs = {
        one.reserved.fingerprint: one.reserved.cost
        for one in ledger.charges.values()
        if one.reserved.dataset == dataset and one.reserved.epoch == epoch
    }
    if not costs:
        return {}
    gaussian = sum(cost for name, cost in costs.items() if name not in others)
    exact = gaussian_view(gaussian) if gaussian else 0.0
    plain = sum(others.get(name, 0.0) for name in costs)
    one_by_one = sum(others.get(name) or epsilon(cost, DELTA) for name, cost in costs.items())
    name = "gaussian-plus-pure" if plain else "gaussian-exact"
    return {name: rounded(exact + plain), "basic-composition": rounded(one_by_one)}


def _scope(ledger: Ledger, scope: Scope) -> dict[str, Any]:
    budget = ledger.budget(scope)
    return {
        "kind": str(scope.kind),
        "name": scope.name,
        "cap": price(budget.cap),
        "spent": price(budget.spent),
        "left": price(budget.left),
    }


def registry_document(summary: Mapping[str, Any], about: Publication) -> dict[str, Any]:
    """Return the file of an epoch as the registry's form; every key it lists and no other."""
    spent, releases = summary["spent"], summary["releases"]
    final = sum(one["state"] == str(Status.FINAL) for one in releases)
    name = f"{about.hospital}: statistics of {summary['dataset']}, epoch {summary['epoch']}"
    return {
        "url_slug": _SLUG.sub("-", name.lower()).strip("-"),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": _basic(about, name, final),
            "administrative": {"registry_authors": [about.author]},
            "dp_variant": _variant(),
            "privacy_loss": _loss(spent, summary),
            "deployment_model": _model(about),
            "accounting": {
                "post_processing": "Ratios, rates, AUC, calibration and clamping for display are"
                " made from released integers and cost nothing.",
                "composition": "Zero-concentrated DP, added in integers of 1e-12 rho, every cost"
                " rounded up; one filter per data set and epoch, lifetime, requester and purpose."
                f" {len(releases)} charges in this epoch; nothing is refunded.",
            },
            "implementation": _implementation(summary),
        },
    }


def _basic(about: Publication, name: str, final: int) -> dict[str, Any]:
    return {
        "name": name,
        "data_curators": [about.hospital],
        "description": f"{final} finished releases of counts and sums over a hospital's imaging"
        " studies, with exact integer noise, each signed and bound by a public-key log.",
        "intended_use": about.intended_use,
        "data_product_type": "Summary statistics",
        "data_product_region": about.region,
        "publication_date": about.published,
        "data_product_sector": "Healthcare",
    }


def _variant() -> dict[str, Any]:
    return {
        "variant_name": "Zero-concentrated DP",
        "data_domain": "Tables of imaging studies, any number per patient; the number of patients"
        " and of studies is private.",
        "unprotected_quantities": "Keys of every statistic, bounds, grids, c, schedule, prices and"
        " policy are public, and were chosen without looking at raw data by the box; whoever tuned"
        " them on raw data by hand has published something. Not covered: studies beyond c, the"
        " treating radiologist's exact results, and whoever is root on the box.",
    }


def _loss(spent: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "privacy_unit": "Patient",
        "privacy_unit_details": "Two data sets are neighbours when one is the other plus or minus"
        " one patient with all of that patient's studies in the epoch. A patient is a keyed hash"
        " of the master patient index; studies without an id count together as one patient.",
        "privacy_parameters": {
            "epsilon": spent["epsilon"],
            "delta": spent["delta"],
            "rho": spent["rho"],
        },
        "privacy_parameters_details": f"What epoch {summary['epoch']} spent in all; epsilon is"
        " converted from rho at that delta. A patient treated at several hospitals pays at each.",
    }


def _model(about: Publication) -> dict[str, Any]:
    return {
        "model_name": "Central",
        "actors": f"{about.hospital} holds the data and adds the noise on a box of its own; no"
        " raw record leaves it.",
        "release_type": "Many releases",
        "release_type_details": "One-off releases and nightly schedules on a fixed budget for the"
        " epoch; asked again, a release is the stored answer.",
        "data_source_type": "Dynamic",
        "data_source_type_details": "Studies arrive every day; each release reads a frozen"
        " snapshot.",
        "access_type": about.access_type,
        "access_type_details": about.access_details,
    }


def _implementation(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "preprocessing_and_hyperparameter_tuning": "At most c studies of a patient and epoch, the"
        " first by arrival; values outside public bounds are clamped, unusable ones count as the"
        " middle. Bounds come from a signed policy, none from data.",
        "mechanisms": "Exact discrete Gaussian and discrete Laplace on integer vectors; the"
        " exponential mechanism on a public grid for quantiles.",
        "justification": "Exact integer samplers leave no low bits; the budget is a durable ledger"
        f" in log {summary['log']} with {summary['entries']} entries.",
    }


# --- YAML ----------------------------------------------------------------------------------------


def yaml_text(document: Mapping[str, Any]) -> str:
    """Return a document as YAML of one strict shape: block style, every string double-quoted.

    JSON's double-quoted strings are strings of YAML too, so nothing is ever read as a date, a
    number or a truth value that was written as text.

    Raises:
        InvalidInputError: a key that is not a plain word, or a value that is neither text, number,
            list nor mapping.
    """
    return "\n".join(_lines(document, 0)) + "\n"


def _lines(value: Mapping[str, Any], depth: int) -> list[str]:
    found, pad = [], "  " * depth
    for key, one in value.items():
        if not _KEY.fullmatch(key):
            raise InvalidInputError("a key of the transparency file is a plain word")
        if isinstance(one, Mapping):
            found += [f"{pad}{key}:", *_lines(one, depth + 1)]
        elif isinstance(one, list):
            found += [f"{pad}{key}:", *(f"{pad}  - {_scalar(each)}" for each in one)]
        else:
            found.append(f"{pad}{key}: {_scalar(one)}")
    return found


def _scalar(value: object) -> str:
    if type(value) is str:
        return json.dumps(value)
    if type(value) is int:
        return str(value)
    if type(value) is float:
        return format_float(value)
    raise InvalidInputError("a value of the transparency file is text or a number")


def format_float(value: float) -> str:
    """Return a float that YAML 1.1 readers take for one: a point always, a sign on the exponent."""
    mantissa, mark, exponent = repr(value).partition("e")  # Python writes the sign itself
    point = "" if "." in mantissa else ".0"
    return f"{mantissa}{point}{mark}{exponent}"
