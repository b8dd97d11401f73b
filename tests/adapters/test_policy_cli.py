"""`bedside-edge policy` and `grade`: from a template to a signed policy in force."""

import json

import pytest
from click.testing import CliRunner

from bedside_core.errors import (
    BedsideError,
    InvalidKeyError,
    InvalidPolicyError,
    UntrustedSignatureError,
)
from bedside_edge.cli import cli
from bedside_edge.system.policy_cedar import shipped_document
from bedside_edge.system.policy_keys import trusted_keys
from support.dicom_files import bundled_path


def run(*arguments, stdin=None):
    """Return what a command prints; its error is raised as the error it is."""
    done = CliRunner().invoke(cli, [str(one) for one in arguments], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def desk(tmp_path):
    """A template, two keys and the box's folder of trusted keys."""
    run("policy", "template", tmp_path / "ours")
    (tmp_path / "trusted").mkdir()
    for name in ("officer", "head"):
        run("policy", "keygen", name, tmp_path / f"{name}.pem", "--no-passphrase")
        (tmp_path / "trusted" / f"{name}.pub").write_text((tmp_path / f"{name}.pub").read_text())
    (tmp_path / "bedside.toml").write_text(f'[policy]\ntrusted = "{tmp_path / "trusted"}"\n')
    return tmp_path


def sign(desk, source, *names):
    output = desk / "signed.json"
    for name in names:
        key = desk / f"{name}.pem"
        run("policy", "sign", source, "--key", key, "-o", output, "--no-passphrase")
        source = output
    return output


def activate(desk, path):
    where = ("--state", desk / "state", "--config", desk / "bedside.toml")
    return run("policy", "activate", path, *where)


def loosen(desk):
    cedar, toml = desk / "ours" / "policy.cedar", desk / "ours" / "policy.toml"
    more = '@id("more") permit(principal, action == Action::"release", resource)'
    when = ' when { principal.roles.contains("administrator") };'
    cedar.write_text(cedar.read_text() + more + when)
    words = '[reasons]\nmore = { en = "More.", zh = "更多。" }'
    toml.write_text(toml.read_text().replace("[reasons]", words, 1))


def test_a_template_is_the_shipped_policy_one_version_up_and_needs_one_signature(desk):
    said = json.loads(run("policy", "check", desk / "ours", "--json"))
    assert (said["looser"], said["needed"], said["policy"]) == ([], 1, "default 2")
    assert "1 signature" in run("policy", "check", desk / "ours")
    assert "default 2 in force, revision 2" in activate(desk, sign(desk, desk / "ours", "officer"))


@pytest.mark.slow
def test_a_looser_policy_comes_into_force_with_two_signatures_only(desk):
    loosen(desk)
    said = run("policy", "check", desk / "ours")
    assert "looser - permits more: more" in said
    assert "would permit: administrator release" in said
    assert "needs 2 signatures" in said
    with pytest.raises(UntrustedSignatureError, match="permits more: more"):
        activate(desk, sign(desk, desk / "ours", "officer"))
    assert "in force" in activate(desk, sign(desk, desk / "ours", "officer", "head"))


def test_a_key_outside_the_folder_counts_for_nothing(desk):
    (desk / "trusted" / "officer.pub").unlink()
    with pytest.raises(UntrustedSignatureError):
        activate(desk, sign(desk, desk / "ours", "officer"))


@pytest.mark.parametrize(
    ("found", "instead", "said"),
    [
        ("resource.withdrawn }", "resource.withdrwn }", "withdrwn"),
        ("context.people < 2", "context.people < 1", "one-person-unseal was changed"),
        ('@id("guardian")', "", "@id"),
        ("resource.grade >= 5", "resource.grade >= 6", "golden case"),
    ],
)
def test_a_typo_is_refused_by_check_and_by_sign(desk, found, instead, said):
    cedar = desk / "ours" / "policy.cedar"
    cedar.write_text(cedar.read_text().replace(found, instead, 1))
    with pytest.raises(InvalidPolicyError, match=said):
        run("policy", "check", desk / "ours")
    with pytest.raises(InvalidPolicyError, match=said):
        sign(desk, desk / "ours", "officer")


def test_explain_names_rule_and_reason_in_both_languages(tmp_path):
    ask = tmp_path / "ask.json"
    ask.write_text(
        '{"use": "infer", "data": {"minor": true}, "actor": {"kind": "system"},'
        ' "context": {"model_state": "released"}}'
    )
    said = run("policy", "explain", ask)
    assert said.startswith("denied (forbid)")
    assert "guardian: " in said
    assert "监护人" in said
    told = json.loads(run("policy", "explain", "-", "--json", stdin=ask.read_text()))
    applying = [one["rule"] for one in told["fired"] if one["applies"]]
    assert applying == ["infer-for-treatment", "guardian"]
    ask.write_text('{"use": "infer", "data": {"minro": true}}')
    with pytest.raises(InvalidPolicyError, match="minro"):
        run("policy", "explain", ask)


def test_show_and_digest_are_of_the_shipped_policy_unless_told_otherwise(desk):
    shown = json.loads(run("policy", "show", "--json"))
    assert shown["digest"] == shipped_document().digest == run("policy", "digest").strip()
    assert all(rule["en"] and rule["zh"] for rule in shown["rules"])
    assert run("policy", "digest", desk / "ours").strip() != shown["digest"]
    signed = sign(desk, desk / "ours", "officer")
    assert run("policy", "digest", signed) == run("policy", "digest", desk / "ours")
    assert "withdrawal" in run("policy", "show", signed)


def test_keys_are_private_protected_and_never_passed_over(desk, tmp_path):
    assert (desk / "officer.pem").stat().st_mode & 0o777 == 0o600
    assert set(trusted_keys(desk / "trusted")) == {
        json.loads(sign(desk, desk / "ours", name).read_text())["signatures"][0]["keyid"]
        for name in ("officer", "head")
    }
    with pytest.raises(InvalidKeyError):
        run("policy", "keygen", "officer", desk / "officer.pem", "--no-passphrase")
    run("policy", "keygen", "third", tmp_path / "third.pem", stdin="a long phrase\n")
    sign_it = ("policy", "sign", desk / "ours", "--key", tmp_path / "third.pem", "-o", desk / "x")
    with pytest.raises(InvalidKeyError):
        run(*sign_it, stdin="another phrase\n")
    run(*sign_it, stdin="a long phrase\n")
    (desk / "trusted" / "broken.pub").write_text("officer+00000000+AAAA")
    with pytest.raises(InvalidKeyError):
        trusted_keys(desk / "trusted")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"payload": 3}', '{"payload": "AAAA"}', "x"])
def test_what_is_no_signed_policy_is_refused(tmp_path, text):
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(BedsideError):
        run("policy", "check", path)


def test_grade_rules_show_and_explain(tmp_path):
    rules = json.loads(run("grade", "rules", "--json"))
    assert (rules["default"], rules["rules"][0]["grade"]) == (4, 5)
    assert "special-disease" in run("grade", "rules")
    assert "treating" in run("grade", "show")
    path = bundled_path("CT_small")
    assert run("grade", "explain", path) == "grade 4: no rule applies, the default\n"
    mine = tmp_path / "grading.toml"
    rho = "".join(f"{grade} = 1\n" for grade in range(1, 6))
    mine.write_text(
        'format = "bedside-grading/1"\n[[rule]]\nname = "ct"\ngrade = 5\nmodality = ["CT"]\n'
        f"[rho]\n{rho}"
    )
    config = tmp_path / "bedside.toml"
    config.write_text(f'[policy]\ngrading = "{mine}"\n')
    told = json.loads(run("grade", "explain", path, "--config", config, "--json"))
    assert (told["grade"], told["rule"]) == (5, "ct")
    assert "modality: CT" in run("grade", "rules", "--file", mine)
