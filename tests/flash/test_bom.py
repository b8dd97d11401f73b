"""Bills of materials say what is locked, installed and shipped, and a check finds every lie."""

import hashlib
import importlib.util
import json
import shutil
from email.message import Message
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from click.testing import CliRunner

from bedside_core.errors import InvalidInputError, InvalidPackageError
from bedside_flash import bom
from bedside_flash.cli import cli
from bedside_models.bom import package_bom, read_training
from support.repository import ROOT

LOCK = (ROOT / "requirements.txt").read_text(encoding="utf-8")
SHIPPED = ROOT / "models" / "packages" / "cxr-opacity" / "1.0.0"
CHECKPOINT = ROOT / "models" / "checkpoints" / "cxr-opacity-1.0.0.npz"


@pytest.fixture(scope="module")
def schema():
    """The JSON schema of CycloneDX 1.6 that its library ships, and a validator of another maker."""
    if importlib.util.find_spec("jsonschema_rs") is None:
        pytest.skip("not installed: jsonschema_rs (comes with schemathesis)")
    import cyclonedx
    import jsonschema_rs

    folder = Path(cyclonedx.__file__).parent / "schema" / "_res"

    def fetch(uri):
        stem = Path(urlparse(uri).path).name.removesuffix(".schema.json").removesuffix(".SNAPSHOT")
        return json.loads((folder / f"{stem}.SNAPSHOT.schema.json").read_text())

    return jsonschema_rs.validator_for(
        json.loads((folder / "bom-1.6.SNAPSHOT.schema.json").read_text()), retriever=fetch
    )


@pytest.fixture(scope="module")
def app():
    return json.loads(bom.app_bom(LOCK))


def test_the_app_s_bill_is_valid_and_so_is_the_model_s(schema, app):
    model = json.loads(SHIPPED.with_name("1.0.0.cdx.json").read_text())
    for document in (app, model):
        assert [str(one) for one in schema.iter_errors(document)] == []
        spoilt = json.loads(json.dumps(document))
        spoilt["components"][0]["type"] = "no such type"
        assert list(schema.iter_errors(spoilt))


def test_the_bill_lists_what_is_locked_and_installed_and_nothing_of_the_tests(app):
    pins = bom.read_lock(LOCK)
    listed = {part["name"]: part for part in app["components"]}
    for name, part in listed.items():
        assert part["version"] == metadata.version(name) == pins[name].version
        assert {one["content"] for one in part["hashes"]} == set(pins[name].sha256)
    assert {"numpy", "openvino", "pydicom", "tuf", "cyclonedx-python-lib"} <= set(listed)
    assert not {"pytest", "hypothesis", "mypy", "torch"} & set(listed)
    licensed = [part for part in listed.values() if part.get("licenses")]
    assert len(licensed) >= len(listed) - 2  # cedarpy and pyrage state none in their metadata


def test_dependencies_lead_from_the_app_to_every_library(app):
    edges = {one["ref"]: set(one.get("dependsOn", [])) for one in app["dependencies"]}
    reached, waiting = set(), ["bedside"]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += edges[name]
    assert reached == {part["bom-ref"] for part in app["components"]} | {"bedside"}
    assert "securesystemslib" in edges["tuf"]


def test_the_same_lock_gives_the_same_bytes():
    assert bom.app_bom(LOCK) == bom.app_bom(LOCK)


def test_an_installed_version_that_is_not_the_locked_one_is_refused():
    def other(name):
        found = metadata.metadata(name)
        if name != "pynng":
            return found
        changed = Message()
        changed["Version"] = "0.0.1"
        return changed

    with pytest.raises(InvalidInputError, match=r"pynng 0\.0\.1"):
        bom.app_bom(LOCK, read=other)
    lines = LOCK.replace("pynng==0.9.0", "pynnh==0.9.0")
    with pytest.raises(InvalidInputError, match="nothing of it"):
        bom.app_bom(lines)


@pytest.mark.parametrize("text", ["pynng>=0.9 --hash=sha256:" + "a" * 64, "pynng==0.9.0"])
def test_a_lock_without_pin_or_digest_is_none(text):
    with pytest.raises(InvalidInputError, match="not pinned"):
        bom.read_lock(text)


def test_the_shipped_model_s_bill_is_its_package_s_and_checkpoint_s():
    made = package_bom(SHIPPED, read_training(CHECKPOINT))
    assert SHIPPED.with_name("1.0.0.cdx.json").read_bytes() == made
    (checked,) = bom.check_boms(SHIPPED)
    assert checked.kind == "machine-learning-model"
    files = [p for p in SHIPPED.rglob("*") if p.is_file()]
    assert checked.components == len(files) - 1  # all but the manifest
    assert json.loads(made)["components"][0]["modelCard"]["modelParameters"]["datasets"]


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(InvalidInputError):
        read_training(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", a=np.zeros(1))
    with pytest.raises(InvalidInputError):
        read_training(tmp_path / "y.npz")


@pytest.fixture
def copied(tmp_path):
    folder = tmp_path / "cxr-opacity" / "1.0.0"
    shutil.copytree(SHIPPED, folder)
    beside = folder.with_name("1.0.0.cdx.json")
    shutil.copyfile(SHIPPED.with_name("1.0.0.cdx.json"), beside)
    return folder, beside


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        ("no bill", "no bill"),
        ("changed file", "is not the file"),
        ("more files", "does not list"),
        ("fewer files", "does not list"),
        ("another model", "another model"),
        ("no card", "with its card"),
        ("cut off", "no bill of materials"),
        ("other version", "no CycloneDX"),
        ("bad digest", "no CycloneDX"),
        ("listed twice", "twice"),
        ("said twice", "no bill of materials"),
        ("hidden below", "does not list"),
        ("inner without digest", "no bill of materials"),
    ],
)
def test_every_lie_about_a_model_is_found(copied, harm, word):
    folder, beside = copied
    document = json.loads(beside.read_text())
    part = document["components"][0]
    if harm == "no bill":
        beside.unlink()
    elif harm == "changed file":
        (folder / "card.md").write_text("other")
    elif harm == "more files":
        (folder / "more.onnx").write_text("other")
    elif harm == "fewer files":
        (folder / "card.md").unlink()
    elif harm == "another model":
        part["version"] = "9.9.9"
    elif harm == "no card":
        del part["modelCard"]
    elif harm == "other version":
        document["specVersion"] = "1.4"
    elif harm == "bad digest":
        part["hashes"] = [{"alg": "SHA-256", "content": "zz"}]
    elif harm == "listed twice":  # the first digest is a lie, the second one true
        twin = dict(part["components"][0])
        twin["hashes"] = [{"alg": "SHA-256", "content": "0" * 64}]
        part["components"].insert(0, twin)
    elif harm == "hidden below":
        (folder / "sub").mkdir()
        (folder / "sub" / "manifest.json").write_text("{}")
    elif harm == "inner without digest":
        part["components"] = [{"name": "card.md", "type": "file", "hashes": None}]
    if harm != "no bill":
        text = json.dumps(document)
        if harm == "said twice":
            text = text[:-1] + ', "components": ' + json.dumps(document["components"]) + "}"
        beside.write_text(text[: len(text) // 2] if harm == "cut off" else text)
    with pytest.raises(InvalidPackageError, match=word):
        bom.check_boms(folder)


def test_a_bill_with_names_that_lead_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "app"
    folder.mkdir()
    part = {
        "type": "file",
        "name": "../secret",
        "hashes": [{"alg": "SHA-256", "content": "a" * 64}],
    }
    top = {"component": {"type": "application", "name": "x"}}
    whole = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": top}
    (folder / "bom.cdx.json").write_text(json.dumps(whole | {"components": [part]}))
    with pytest.raises(InvalidPackageError, match="not there"):
        bom.check_boms(folder)


def test_an_app_folder_s_bill_is_compared_with_its_lock(tmp_path):
    (tmp_path / "bom.cdx.json").write_bytes(bom.app_bom(LOCK))
    (tmp_path / "requirements.txt").write_text(LOCK)
    (checked,) = bom.check_boms(tmp_path)
    assert checked.kind == "application"
    (tmp_path / "requirements.txt").write_text(LOCK.replace("tuf==7.0.1", "tuf==7.0.0"))
    with pytest.raises(InvalidPackageError, match="tuf is not as it is locked"):
        bom.check_boms(tmp_path)
    (tmp_path / "bom.cdx.json").unlink()
    assert bom.check_boms(tmp_path) == ()


def test_a_package_s_bill_agrees_with_what_its_manifest_signs_for():
    files = {
        p.relative_to(SHIPPED).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in SHIPPED.rglob("*")
        if p.is_file()
    }
    data = SHIPPED.with_name("1.0.0.cdx.json").read_bytes()
    packed = files | {"bom.cdx.json": "0" * 64, "model.sig": "1" * 64}
    assert bom.check_listed(data, "bom.cdx.json", packed).components == len(files) - 1
    for wrong in (packed | {"card.md": "2" * 64}, packed | {"more.onnx": "2" * 64}):
        with pytest.raises(InvalidPackageError, match="does not list"):
            bom.check_listed(data, "bom.cdx.json", wrong)
    assert bom.check_listed(data, "bom.cdx.json", packed, "", ("cxr-opacity", "1.0.0"))
    with pytest.raises(InvalidPackageError, match="another model"):
        bom.check_listed(data, "bom.cdx.json", packed, "", ("cxr-opacity", "1.0.1"))
    app = bom.app_bom(LOCK)
    with pytest.raises(InvalidPackageError, match="of a model"):  # it would list no file at all
        bom.check_listed(app, "bom.cdx.json", packed, "", ("cxr-opacity", "1.0.0"))
    assert bom.check_listed(app, "app.cdx.json", {}, LOCK).kind == "application"
    with pytest.raises(InvalidPackageError, match="tuf is not as it is locked"):
        bom.check_listed(app, "app.cdx.json", {}, LOCK.replace("tuf==7.0.1", "tuf==7.0.0"))
    part = {"type": "file", "name": "x", "hashes": [{"alg": "SHA-256", "content": "a" * 64}]}
    more = json.loads(app)
    more["components"].append(part)
    with pytest.raises(InvalidPackageError, match="not in the package"):
        bom.check_listed(json.dumps(more).encode(), "app.cdx.json", {"x": "b" * 64})


def test_the_commands_write_and_check(tmp_path):
    target = tmp_path / "bedside.cdx.json"
    words = ["sbom", "app", "--lock", str(ROOT / "requirements.txt"), "-o", str(target)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert "libraries" in done.output
    assert json.loads(target.read_text())["bomFormat"] == "CycloneDX"
    done = CliRunner().invoke(cli, ["sbom", "check", str(SHIPPED), "--json"])
    assert json.loads(done.output)["bills"][0]["kind"] == "machine-learning-model"
