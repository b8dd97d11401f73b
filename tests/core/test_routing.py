import tomllib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidRulesError
from bedside_core.manifest import Accepts
from bedside_core.routing import (
    KEYS,
    MOST_RULES,
    Image,
    chances,
    default_rules,
    parse_rules,
    route,
)

CHEST = Accepts(
    modalities=["CR", "DX"],
    body_parts=["CHEST", "THORAX"],
    views=["PA", "AP"],
    minimum_pixels=256,
)
DX = "1.2.840.10008.5.1.4.1.1.1.1"
MADE_FOR = """
format = "bedside-rules/1"

[[rules]]
name = "made-for-cxr"
model = "cxr"
when.modality = ["CR", "DX"]
when.body_part = ["CHEST", "THORAX", ""]
when.view = ["PA", "AP", ""]
"""
CHEST_RULES = parse_rules(MADE_FOR.encode())


@dataclass(frozen=True)
class Header:
    sop_class_uid: str = DX
    modality: str = "DX"
    body_part: str = "CHEST"
    view: str = "PA"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY")
    presentation_intent: str = "FOR PRESENTATION"
    rows: int = 2048
    columns: int = 2048


def image(source="XR1", laterality="", **changes):
    return Image(header=Header(**changes), source=source, laterality=laterality)


def rules(*tables):
    return parse_rules(('format = "bedside-rules/1"\n' + "\n".join(tables)).encode())


def rule(name, model, lines=""):
    return f'[[rules]]\nname = "{name}"\nmodel = "{model}"\n{lines}\n'


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"body_part": ""},
        {"view": ""},
        {"body_part": "Thorax "},
        {"modality": "CR"},
        {"modality": ""},  # the SOP Class says DX
    ],
)
def test_a_rule_takes_what_it_was_made_for(changes):
    plan = route(CHEST_RULES, [image(**changes)])
    assert (plan.model, plan.rule, plan.takes) == ("cxr", "made-for-cxr", (True,))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": "CT"}, "modality CT, the rule wants CR, DX"),
        ({"modality": "", "sop_class_uid": "1.2.3"}, "no modality, the rule wants CR, DX"),
        ({"body_part": "KNEE"}, "body part KNEE, the rule wants CHEST, THORAX, (empty)"),
        ({"view": "LL"}, "view LL, the rule wants PA, AP, (empty)"),
    ],
)
def test_no_match_means_that_nothing_runs_and_says_why(changes, words):
    plan = route(CHEST_RULES, [image(**changes)])
    assert (plan.model, plan.rule, plan.takes) == ("", "", (False,))
    assert plan.reason == f"no rule takes it - made-for-cxr: {words}"


def test_without_a_file_the_model_is_asked_of_every_study_and_its_own_check_answers():
    (only,) = tomllib.loads(default_rules("cxr"))["rules"]
    assert only == {"name": "every-study", "model": "cxr"}
    everything = [image(modality="CT"), image(body_part="KNEE"), image()]
    plan = route(parse_rules(default_rules("cxr").encode()), everything)
    assert (plan.model, plan.takes) == ("cxr", (True, True, True))


def test_the_first_rule_that_takes_an_image_takes_the_study():
    found = rules(
        rule("ct", "lungs", 'when.modality = ["CT"]'),
        rule("chest", "cxr", 'when.view = ["PA"]'),
        rule("rest", "other"),
    )
    plan = route(found, [image(view="LL"), image(view="PA")])
    assert (plan.model, plan.takes, plan.reason) == ("cxr", (False, True), "rule chest")
    ct, chest, rest = plan.verdicts
    assert ct.reason == "modality DX, the rule wants CT"
    assert (chest.chosen, chest.reason) == (True, "takes 1 of 2 images")
    assert (rest.chosen, rest.takes, rest.reason) == (False, (True, True), "rule chest comes first")


def test_a_rule_without_a_model_stops_the_study():
    found = rules(
        rule("research", "", 'when.source = ["LAB"]'),
        rule("chest", "cxr"),
    )
    stopped = route(found, [image(source="LAB")])
    assert (stopped.model, stopped.rule) == ("", "research")
    assert stopped.reason == "rule research says that nothing runs"
    assert route(found, [image()]).model == "cxr"


def test_unless_leaves_out_what_it_names():
    found = rules(rule("chest", "cxr", 'unless.image_type = ["DERIVED"]'))
    plan = route(found, [image(image_type=("DERIVED", "PRIMARY")), image()])
    assert plan.takes == (False, True)
    alone = route(found, [image(image_type=("DERIVED", "PRIMARY"))])
    told = "image type DERIVED, PRIMARY, which the rule leaves out"
    assert alone.reason == f"no rule takes it - chest: {told}"


@pytest.mark.parametrize(
    ("line", "takes"),
    [
        ('when.source = ["XR1"]', True),
        ('when.source = ["xr1"]', False),  # AE titles are compared as they are
        ('when.sop_class = ["1.2.840.10008.5.1.4.1.1.1.1"]', True),
        ('when.sop_class = ["1.2.3"]', False),
        ('when.laterality = ["L"]', True),
        ('when.intent = ["for_presentation"]', True),
        ('when.image_type = ["PRIMARY", "x"]', True),
        ('when.body_part = ["chest"]', True),
        ('when.body_part = [""]', False),
    ],
)
def test_every_condition_looks_at_its_attribute(line, takes):
    found = rules(rule("one", "cxr", line))
    assert route(found, [image(laterality="L")]).takes == (takes,)


def test_no_image_type_is_an_empty_one():
    found = rules(rule("one", "cxr", 'when.image_type = [""]'))
    assert route(found, [image(image_type=())]).takes == (True,)


def test_an_unmet_sop_class_is_told_in_full():
    found = rules(rule("one", "cxr", 'when.sop_class = ["1.2.3"]'))
    assert f"SOP Class {DX}" in route(found, [image()]).reason
    assert "no SOP Class" in route(found, [image(sop_class_uid="")]).reason


def test_a_study_without_images_goes_nowhere():
    plan = route(CHEST_RULES, [])
    assert (plan.model, plan.takes) == ("", ())
    assert "the study has no images" in plan.reason


def test_a_long_reason_is_cut():
    found = rules(*(rule(f"rule-{n}", "m", 'when.modality = ["CT"]') for n in range(100)))
    assert len(route(found, [image()]).reason) == 600


def dry(plan_rules, images, **models):
    plan = route(plan_rules, images)
    return {c.model: (c.runs, c.reason) for c in chances(plan, images, models)}


def test_a_dry_run_says_what_becomes_of_every_model():
    found = rules(
        rule("ct", "lungs", 'when.modality = ["CT"]'),
        rule("chest", "cxr"),
        rule("again", "late"),
    )
    told = dry(found, [image()], cxr=CHEST, lungs=CHEST, late=CHEST, spare=CHEST)
    assert told["cxr"] == (True, "rule chest")
    assert told["lungs"] == (False, "rule ct: modality DX, the rule wants CT")
    assert told["late"] == (False, "rule again: rule chest comes first")
    assert told["spare"] == (False, "no rule names it")


def test_a_dry_run_tells_of_the_input_check_and_of_a_model_that_is_missing():
    found = rules(rule("all", "cxr"))
    runs, why = dry(found, [image(view="LL"), image(view="LL")], cxr=CHEST)["cxr"]
    assert not runs
    assert why.startswith("its input check refuses: wrong-view: view LL")
    assert why.count("wrong-view") == 1
    assert dry(found, [image(view="LL"), image()], cxr=CHEST)["cxr"][0]
    assert dry(found, [image()]) == {"cxr": (False, "rule all names it, and it is not loaded")}
    assert dry(CHEST_RULES, [image(view="LL")]) == {}


def test_rules_name_their_models_once_and_hash_to_their_text():
    found = rules(rule("a1", "x"), rule("b1", ""), rule("c1", "y"), rule("d1", "x"))
    assert found.models == ("x", "y")
    assert found.digest.startswith("sha256:")
    assert found.digest != rules(rule("a1", "x")).digest


HEAD = 'format = "bedside-rules/1"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "not TOML"),
        (b"rules =", "not TOML"),
        (b"#" * (300 << 10), "larger than 256 KiB"),
        (b"", "format"),
        (b'format = "bedside-rules/2"', "format"),
        (HEAD.encode(), "between 1 and"),
        (f"{HEAD}rules = 1".encode(), "between 1 and"),
        (f"{HEAD}rules = []".encode(), "between 1 and"),
        (f"{HEAD}rules = [1]".encode(), "rule 1 is not a table"),
        (f"{HEAD}other = 1".encode(), "unknown other"),
        ((HEAD + rule("a", "m") * 2).encode(), "same name"),
        ((HEAD + "[[rules]]\n" * (MOST_RULES + 1)).encode(), "between 1 and"),
        ((HEAD + "[[rules]]\n").encode(), "name must be text"),
        ((HEAD + '[[rules]]\nname = "a"\n').encode(), "model must be text"),
        ((HEAD + rule("", "m")).encode(), "name must be letters"),
        ((HEAD + rule("a b", "m")).encode(), "name must be letters"),
        ((HEAD + rule("a" * 65, "m")).encode(), "name must be letters"),
        ((HEAD + rule("a", "m" * 65)).encode(), "model is longer"),
        ((HEAD + rule("a", "m", "prio = 1")).encode(), "rule 1: unknown prio"),
        ((HEAD + rule("a", "m", "when = 1")).encode(), "rule 1, when is not a table"),
        ((HEAD + rule("a", "m", 'when.patient = ["x"]')).encode(), "unknown patient"),
        ((HEAD + rule("a", "m", 'unless.view = "PA"')).encode(), "must be a list"),
        ((HEAD + rule("a", "m", "when.view = []")).encode(), "must be a list"),
        ((HEAD + rule("a", "m", "when.view = [1]")).encode(), "must be a list"),
        ((HEAD + rule("a", "m", 'when.view = ["--"]')).encode(), "no letter and no digit"),
    ],
)
def test_what_cannot_be_a_rule_is_refused_with_its_place(text, words):
    with pytest.raises(InvalidRulesError, match=words):
        parse_rules(text)


VALUES = st.sampled_from(["", "CR", "DX", "CT", "CHEST", "PA", "LL"])
TABLES = st.dictionaries(
    st.sampled_from(sorted(set(KEYS) - {"image_type"})),
    st.lists(VALUES, min_size=1, max_size=3),
    max_size=3,
)


@given(
    when=TABLES,
    images=st.lists(
        st.builds(image, modality=VALUES, body_part=VALUES, view=VALUES, source=VALUES),
        min_size=1,
        max_size=4,
    ),
)
def test_a_study_runs_exactly_where_some_image_meets_every_line(when, images):
    lines = "\n".join(f"when.{key} = {values!r}" for key, values in when.items())
    plan = route(rules(rule("one", "m", lines)), images)
    assert bool(plan.model) == any(plan.takes)
    assert plan.takes == tuple(not verdict for verdict in map(_unmet(when), images))


def _unmet(when):
    def look(one):
        header = one.header
        found = {
            "source": one.source,
            "sop_class": header.sop_class_uid,
            "modality": header.modality or "DX",
            "body_part": header.body_part,
            "view": header.view,
            "laterality": one.laterality,
            "intent": header.presentation_intent,
        }
        return [key for key, values in when.items() if found[key] not in values]

    return look
