"""A box serves only what its profile pinned and its golden cases confirm; else it says why."""

import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bedside_core.errors import (
    EngineFailedError,
    GoldenMismatchError,
    InvalidPackageError,
    InvalidProfileError,
    ProfileMismatchError,
)
from bedside_core.hardware.board import Board
from bedside_core.hardware.matching import choose
from bedside_core.hardware.profile import parse_profile
from bedside_edge.engine.opening import RUNTIMES, ElasticEngine, load_profiles, open_engine
from bedside_edge.engine.package import open_package
from bedside_edge.engine.probe import probe
from bedside_edge.engine.selftest import prepare_cases
from support.fake_engine import FakeEngine
from support.tiny_onnx import SIZE, tiny_network
from support.tiny_package import known_answers, to_ir, write_tiny_package

PROFILES = Path(__file__).resolve().parents[2] / "hw_profiles"
BOARD = Board(arch="x86_64", cores=2, memory_mib=4096, cpu_flags=frozenset({"avx512_vnni"}))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return open_package(write_tiny_package(tmp_path_factory.mktemp("package")))


def profile(*engines, **acceptance):
    """The v3 profile with its engines replaced, each given as TOML keys."""
    text = (PROFILES / "generic" / "x86-64-v3.toml").read_text()
    head, _, rest = text.partition("[[engines]]")
    limits = rest[rest.index("[limits]") :]
    tables = ""
    for keys in engines:
        fields = {"device": "CPU", "precision": "f32", "streams": 2, "threads": 1} | keys
        tables += "[[engines]]\n"
        tables += "".join(f"{key} = {value!r}\n" for key, value in fields.items())
    limits = limits[: limits.index("[[acceptance]]")]
    fields = {"case": "*", "p50_ms": 1000, "p99_ms": 1000, "max_abs": 0.002, "max_rel": 1.0}
    limits += "[[acceptance]]\n"
    limits += "".join(f"{key} = {value!r}\n" for key, value in (fields | acceptance).items())
    return parse_profile((head + tables + limits).encode())


@pytest.mark.parametrize("precision", ["f32", "int8"])
@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_every_export_opens_tests_itself_and_serves(package, kind, precision):
    opened = open_engine(package, profile({"kind": kind, "precision": precision}), BOARD)
    assert (opened.engine.info.engine, opened.engine.info.precision) == (kind, precision)
    assert opened.test.cases == 2
    assert opened.test.worst_logit <= opened.test.allowed_logit == 0.001
    assert opened.variant.precision == precision
    opened.engine.run(np.zeros((1, 1, SIZE, SIZE), np.float32))


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_a_second_copy_with_all_cores_gives_the_same_bits(package, kind):
    opened = open_engine(package, profile({"kind": kind, "latency_threads": 2}), BOARD)
    plain = open_engine(package, profile({"kind": kind}), BOARD)
    assert isinstance(opened.engine, ElasticEngine)
    assert not isinstance(plain.engine, ElasticEngine)
    tensor = np.sin(np.arange(SIZE * SIZE, dtype=np.float32)).reshape(1, 1, SIZE, SIZE)
    assert opened.engine.run(tensor).logit == plain.engine.run(tensor).logit


def test_an_answer_that_depends_on_how_busy_the_box_is_is_refused(package):
    def fickle(build):
        engine = RUNTIMES["onnxruntime"](build)
        run, nudge = engine.run, 1e-6 * (build.threads - 1)

        class Fickle:
            info, census, close = engine.info, engine.census, engine.close
            readback = engine.readback

            def run(self, tensor):
                return replace(run(tensor), logit=run(tensor).logit + nudge)

        return Fickle()

    with pytest.raises(GoldenMismatchError, match="other thread counts"):
        open_engine(
            package,
            profile({"kind": "onnxruntime", "latency_threads": 2}),
            BOARD,
            runtimes={"onnxruntime": fickle},
        )


def test_an_engine_that_reads_back_another_precision_is_refused_by_name(package):
    def careless(build):
        return FakeEngine(build.io, precision="bf16")

    with pytest.raises(ProfileMismatchError, match="precision bf16 instead of f32"):
        open_engine(
            package, profile({"kind": "onnxruntime"}), BOARD, runtimes={"onnxruntime": careless}
        )


def test_more_streams_than_cores_are_refused_before_anything_is_compiled(package):
    with pytest.raises(ProfileMismatchError, match="16 threads pinned, 2 CPUs"):
        open_engine(package, profile({"kind": "openvino", "streams": 16}), BOARD, runtimes={})


def test_a_wrong_golden_logit_is_refused_and_says_how_far(tmp_path):
    cases = known_answers()
    answer = cases["cases"][1]["answers"][0]
    answer["logit"] += 0.01
    folder = write_tiny_package(tmp_path, golden=cases)
    with pytest.raises(GoldenMismatchError, match=r"ripples: onnxruntime f32 is off by 1\.00e-02"):
        open_engine(open_package(folder), profile({"kind": "onnxruntime"}), BOARD)
    # The other export's known answer is right: it may serve.
    open_engine(open_package(folder), profile({"kind": "openvino"}), BOARD)


def test_a_wrong_golden_decision_is_refused(tmp_path):
    cases = known_answers()
    cases["cases"][0]["answers"][0]["decision"] = "absent"
    folder = write_tiny_package(tmp_path, golden=cases)
    with pytest.raises(GoldenMismatchError, match=r"waves: onnxruntime f32 decides"):
        open_engine(open_package(folder), profile({"kind": "onnxruntime"}), BOARD)


def test_a_pixel_pipeline_that_makes_another_tensor_is_refused(tmp_path):
    cases = known_answers()
    cases["cases"][0]["tensor"]["probes"][2][2] += 0.01
    folder = write_tiny_package(tmp_path, golden=cases)
    with pytest.raises(GoldenMismatchError, match="waves: tensor is off"):
        open_engine(open_package(folder), profile({"kind": "onnxruntime"}), BOARD)


def test_a_retrained_model_with_old_golden_cases_is_refused(tmp_path):
    xml, weights = to_ir(tiny_network(scale=0.505))
    files = {"model.onnx": tiny_network(scale=0.505), "model.xml": xml, "model.bin": weights}
    package = open_package(write_tiny_package(tmp_path, files=files))
    for kind in ("onnxruntime", "openvino"):
        with pytest.raises(GoldenMismatchError, match=f"{kind} f32 is off by"):
            open_engine(package, profile({"kind": kind}), BOARD)


def test_a_profile_can_only_tighten_the_tolerance(package):
    def shifted(build):
        engine = RUNTIMES["onnxruntime"](build)
        run = engine.run

        class Shifted:
            info, census, close = engine.info, engine.census, engine.close
            readback = engine.readback

            def run(self, tensor):
                return replace(run(tensor), logit=run(tensor).logit + 5e-4)

        return Shifted()

    runtimes = {"onnxruntime": shifted}
    choice = {"kind": "onnxruntime"}
    opened = open_engine(package, profile(choice, max_abs=10.0), BOARD, runtimes=runtimes)
    assert opened.test.allowed_logit == 0.001
    assert opened.test.worst_logit == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(GoldenMismatchError):
        open_engine(package, profile(choice, max_abs=1e-4), BOARD, runtimes=runtimes)


def test_an_engine_that_fails_is_not_served(package):
    def broken(build):
        return FakeEngine(build.io, failing=True)

    with pytest.raises(EngineFailedError):
        open_engine(
            package, profile({"kind": "onnxruntime"}), BOARD, runtimes={"onnxruntime": broken}
        )


def test_a_precision_the_package_does_not_ship_is_refused(package):
    with pytest.raises(InvalidPackageError, match="no openvino export in bf16"):
        open_engine(package, profile({"kind": "openvino", "precision": "bf16"}), BOARD)


def test_engines_are_tried_in_order_and_each_refusal_is_kept(package):
    def broken(build):
        return FakeEngine(build.io, failing=True)

    both = profile({"kind": "openvino"}, {"kind": "onnxruntime"})
    runtimes = {"openvino": broken, "onnxruntime": RUNTIMES["onnxruntime"]}
    opened = open_engine(package, both, BOARD, runtimes=runtimes)
    assert opened.engine.info.engine == "onnxruntime"
    assert [name for name, _ in opened.refused] == ["openvino f32"]
    with pytest.raises(ProfileMismatchError, match=r"openvino f32: .* \| onnxruntime f32: "):
        open_engine(package, both, BOARD, runtimes={"openvino": broken, "onnxruntime": broken})


def test_a_model_changed_on_disk_after_opening_is_refused(tmp_path):
    folder = write_tiny_package(tmp_path)
    package = open_package(folder)
    (folder / "model.onnx").write_bytes(tiny_network(scale=0.4))
    with pytest.raises(InvalidPackageError, match=r"model\.onnx"):
        open_engine(package, profile({"kind": "onnxruntime"}), BOARD)


# --- kernels of other machines ------------------------------------------------------------------

SHIPPED = sorted(
    path
    for path in (Path(__file__).resolve().parents[2] / "models" / "packages").glob("*/*")
    if path.is_dir()
)


def serve_with(folder, isa, precision):
    """Open a package in a process whose oneDNN stops at an older instruction set."""
    program = (
        "import dataclasses, pathlib, sys\n"
        "from bedside_core.errors import BedsideError\n"
        "from bedside_core.hardware.profile import parse_profile\n"
        "from bedside_edge.engine.opening import open_engine\n"
        "from bedside_edge.engine.package import open_package\n"
        "from bedside_edge.engine.probe import probe\n"
        "profile = parse_profile(sys.stdin.buffer.read())\n"
        "try: opened = open_engine(open_package(pathlib.Path(sys.argv[1])), profile, probe())\n"
        "except BedsideError as why: print(why.code, why)\n"
        "else: print('serves', opened.engine.info.precision, opened.test.worst_logit)\n"
    )
    text = (PROFILES / "generic" / "x86-64-v4.toml").read_text()
    text = text.replace('precision = "f32"', f'precision = "{precision}"')
    first, _, rest = text.partition('[[engines]]\nkind = "onnxruntime"')
    text = first + rest[rest.index("[limits]") :]  # alone: nothing else is tried in its place
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        input=text.encode(),
        capture_output=True,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.skipif(not SHIPPED, reason="no model package is in the repository")
def test_both_engines_give_the_shipped_packages_answers_within_1e_5():
    shipped = open_package(SHIPPED[-1])
    one, two = (
        open_engine(shipped, profile({"kind": kind}), BOARD).engine
        for kind in ("onnxruntime", "openvino")
    )
    for _, prepared in prepare_cases(shipped):
        left, right = one.run(prepared.tensor), two.run(prepared.tensor)
        for name in ("logit", "features", "cam"):
            ours, theirs = np.asarray(getattr(left, name)), np.asarray(getattr(right, name))
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
        assert float(left.cam.mean()) == pytest.approx(left.logit, abs=1e-4)


@pytest.mark.skipif(not SHIPPED, reason="no model package is in the repository")
def test_the_shipped_package_serves_with_the_openvino_kernels_of_an_avx2_machine():
    assert serve_with(SHIPPED[-1], "AVX2", "f32").startswith("serves f32")


@pytest.mark.skipif(
    "avx512_vnni" not in probe().cpu_flags, reason="this CPU has no AVX-512 VNNI to do without"
)
def test_int8_that_saturates_on_this_machine_is_caught_by_the_golden_cases(package):
    assert serve_with(package.folder, "ALL", "int8").startswith("serves int8")
    told = serve_with(
        package.folder, "AVX512_CORE", "int8"
    )  # the flag is there, the kernels are not
    assert told.startswith("golden-mismatch golden case")
    assert "openvino int8 is off by" in told


# --- profile files -----------------------------------------------------------------------------


def test_shipped_profiles_load_and_one_fits_this_machine(package):
    loaded = load_profiles(PROFILES)
    assert {one.label.split("#")[0] for one in loaded} >= {"generic-x86-64-v3", "generic-x86-64-v4"}
    board = probe()
    if board.level not in ("x86_64_v3", "x86_64_v4"):
        pytest.skip(f"the shipped profiles ask for x86-64-v3, this machine is {board.level!r}")
    chosen = choose(loaded, board)
    assert chosen.loaded.profile.match.cpu.level == board.level
    opened = open_engine(package, chosen.loaded, board)
    assert opened.engine.info.precision == "f32"
    assert opened.refused == ()


@pytest.mark.parametrize("name", ["x86-64-v3", "x86-64-v4"])
def test_each_shipped_profile_serves_on_its_own_engine(package, name):
    loaded = parse_profile((PROFILES / "generic" / f"{name}.toml").read_bytes())
    opened = open_engine(package, loaded, probe())
    assert opened.engine.info.engine == loaded.profile.engines[0].kind


def test_a_profile_in_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "acme").mkdir()
    shutil.copy(PROFILES / "generic" / "x86-64-v3.toml", tmp_path / "acme" / "board.toml")
    with pytest.raises(InvalidProfileError, match="another vendor"):
        load_profiles(tmp_path)


def test_one_unreadable_profile_is_an_error_not_a_gap(tmp_path):
    shutil.copytree(PROFILES, tmp_path / "hw")
    (tmp_path / "hw" / "generic" / "new.toml").write_text("schema_version = 1")
    with pytest.raises(InvalidProfileError):
        load_profiles(tmp_path / "hw")


def test_shipped_profiles_are_named_after_their_file():
    for path in PROFILES.glob("*/*.toml"):
        fields = tomllib.loads(path.read_text())
        assert fields["id"].endswith(path.stem)
        assert fields["vendor"] == path.parent.name
