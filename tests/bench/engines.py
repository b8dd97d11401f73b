"""Bench 1: the bare engine loop beside the service, for tensors and for DICOM objects."""

import json
from pathlib import Path
from typing import Any

from bench.objects import Template, chest_template, serials
from bench.plan import Plan
from bench.processes import WARM_UP, BoxProcess, Helper, box, scratch
from bench.report import Row, difference_row, limit_row, median, ratio_row
from support.dicom_files import bundled

BENCH = "engine"
PATH = "/v2/models/cxr-opacity/infer"
VARIANTS = (
    ("openvino", "f32"),
    ("onnxruntime", "f32"),
    ("openvino", "int8"),
    ("onnxruntime", "int8"),
)
CONCURRENCY = 4
_DICOM = {"Content-Type": "application/dicom"}


def run(plan: Plan) -> list[Row]:
    """Tensors: every engine at every precision, raw and served, in alternating rounds."""
    rows: list[Row] = []
    throughput: dict[tuple[str, str], float] = {}
    with scratch() as folder, Helper("bench.client") as client:
        for engine, precision in VARIANTS:
            with (
                Helper("bench.raw", engine, precision) as raw,
                box(folder, engine=engine, precision=precision) as served,
            ):
                body, headers = _tensor_request(raw, folder)
                ask = {"port": served.http_port, "path": PATH, "headers": headers, "body": body}
                # int8 is served on request only: the targets speak of the default, f32
                case = f"{engine} {precision}"
                rows += _latency(plan, raw, client, served, ask, case)
                found, per_s = _throughput(plan, raw, client, ask, case, precision == "f32")
                throughput[engine, precision] = per_s
                rows += found
                client.ask("hang_up", port=served.http_port)
    for engine in ("openvino", "onnxruntime"):
        fast, slow = throughput[engine, "int8"], throughput[engine, "f32"]
        case = f"{engine} int8, raw loop"
        rows.append(ratio_row(BENCH, case, fast, "/s", "f32", slow, at_least=2.0))
    return rows


def run_dicom(plan: Plan) -> list[Row]:
    """DICOM bodies, default engine: service against decoding and inferring in one process."""
    rows: list[Row] = []
    with (
        scratch() as folder,
        Helper("bench.client") as client,
        Helper("bench.raw", "", "") as raw,
        box(folder) as served,
    ):
        small = chest_template(512)
        objects = {"512x512x16 CR": small.copy(), "RG1 1955x1841 CR": bundled("RG1_UNCR")}
        for name, data in objects.items():
            path = folder / "object.dcm"
            path.write_bytes(data)
            rows += _dicom(plan, raw, client, served, name, path)
        rows.append(_durable(plan, client, served, small, folder))
    return rows


def _tensor_request(raw: Helper, folder: Path) -> tuple[str, dict[str, str]]:
    path = folder / "tensor"
    shape = raw.ask("save_tensor", path=str(path))["shape"]
    tensor = path.read_bytes()
    document = {
        "inputs": [
            {
                "name": "input",
                "shape": shape,
                "datatype": "FP32",
                "parameters": {"binary_data_size": len(tensor)},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(document).encode()
    body = folder / "request"
    body.write_bytes(text + tensor)
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(text)),
    }
    return str(body), headers


def _latency(
    plan: Plan, raw: Helper, client: Helper, served: BoxProcess, ask: dict[str, Any], case: str
) -> list[Row]:
    """One client: what the service adds to the bare call, round against round."""
    name, gated = case, case.endswith("f32")
    ours, bare, ours_cpu, bare_cpu = [], [], 0.0, 0.0
    rounds = plan.rounds * 3
    for _ in range(rounds):
        answer = raw.ask("latency", count=plan.calls)
        bare.append(median(answer["ms"]))
        bare_cpu += answer["cpu_s"]
        before = served.cpu_s()
        answer = client.ask("latency", count=plan.calls, **ask)
        ours_cpu += served.cpu_s() - before
        _expect(answer, {200})
        ours.append(median(answer["ms"]))
    limit = 0.35 if gated else None
    calls = rounds * (plan.calls + WARM_UP)
    wall, processor = f"{name}, binary tensor, 1 client, p50", f"{name}, processor time of a call"
    mine, theirs = ours_cpu * 1e3 / calls, bare_cpu * 1e3 / calls
    return [
        difference_row(BENCH, wall, ours, "ms", "raw", bare, limit),
        difference_row(BENCH, processor, [mine], "ms", "raw", [theirs]),
    ]


def _throughput(
    plan: Plan, raw: Helper, client: Helper, ask: dict[str, Any], name: str, gated: bool
) -> tuple[list[Row], float]:
    """Four clients against a bare loop with a thread per stream."""
    ours, bare = [], []
    for _ in range(plan.rounds):
        bare.append(raw.ask("throughput", seconds=plan.seconds)["per_s"])
        answer = client.ask("throughput", connections=CONCURRENCY, seconds=plan.seconds, **ask)
        _expect(answer, {200})
        ours.append(answer["per_s"])
    share = median([a / b for a, b in zip(ours, bare, strict=True)])
    case = f"{name}, binary tensor, {CONCURRENCY} clients"
    reference = median(ours) / share
    limit = 0.9 if gated else None
    rows = [
        ratio_row(BENCH, case, median(ours), "/s", "raw loop", reference, at_least=limit),
    ]
    return rows, median(bare)


def _dicom(
    plan: Plan, raw: Helper, client: Helper, served: BoxProcess, name: str, path: Path
) -> list[Row]:
    ask = {"port": served.http_port, "path": PATH, "headers": _DICOM, "body": str(path)}
    ours, whole, decode, pydicom, engine = [], [], [], [], []
    client.ask("latency", count=3, **ask)
    raw.ask("decode_and_infer", path=str(path), count=3)
    for _ in range(plan.rounds * 2):
        whole.append(median(raw.ask("decode_and_infer", path=str(path), count=plan.calls)["ms"]))
        answer = client.ask("latency", count=plan.calls, **ask)
        _expect(answer, {200, 422})
        ours.append(median(answer["ms"]))
        decode.append(median(raw.ask("decode", path=str(path), count=plan.calls)["ms"]))
        pydicom.append(median(raw.ask("pydicom_decode", path=str(path), count=plan.calls)["ms"]))
        engine.append(median(raw.ask("latency", count=plan.calls)["ms"]))
    share = median([a / b for a, b in zip(ours, whole, strict=True)])
    alone = median(pydicom) + median(engine)
    state = "" if answer["statuses"] == [200] else ", refused"
    case = f"{name}, DICOM body, 1 client, p50{state}"
    both = median(ours) / share
    rows = [
        ratio_row("dicom-body", case, median(ours), "ms", "decode + engine", both, at_most=1.25)
    ]
    rows.append(ratio_row("dicom-body", case, median(ours), "ms", "pydicom decode + engine", alone))
    rows.append(
        ratio_row(
            "dicom-body", f"{name}, decode alone", median(decode), "ms", "pydicom", median(pydicom)
        )
    )
    return rows


def _durable(plan: Plan, client: Helper, served: BoxProcess, small: Template, folder: Path) -> Row:
    """Stored, filed, queued, analysed, answered: what a workstation waits for."""
    head, tail = folder / "head", folder / "tail"
    head.write_bytes(small.head)
    tail.write_bytes(small.tail)
    count = plan.calls * plan.rounds
    answer = client.ask(
        "analyze",
        port=served.http_port,
        path="/api/v1/studies:analyze",
        headers=_DICOM | {"Prefer": "wait=20"},
        template=[str(head), str(tail)],
        first=serials(count),
        count=count,
    )
    _expect(answer, {200, 422})
    case = "512x512x16 CR, studies:analyze, stored and waited for, p50"
    return limit_row("dicom-body", case, median(answer["ms"]), "ms")


def _expect(answer: dict[str, Any], wanted: set[int]) -> None:
    if not set(answer["statuses"]) <= wanted:
        raise RuntimeError(f"the service answered {answer['statuses']}")
