"""A first draft of a hardware profile from the facts of a board, and what a careful eye adds.

The draft claims nothing: its level is `unverified` and its ceilings are wide. Whoever writes a
profile measures on the board, narrows them and says where the measurement is written.
"""

import json

from bedside_core.hardware.board import Board
from bedside_core.hardware.profile import Profile

_DRAFT = """\
# Draft for {name}, from a probe with digest
# {digest}.
# Every key: docs/hardware.md. Check it with `bedside-flash lint`.
schema_version = 1
id = {id}  # for ever; never another board under the same id
vendor = {vendor}  # the folder, and the role that signs the path
name = {name}
seq = 1                      # counts up with every change; a box never goes back
evidence = "unverified"      # "measured" needs evidence_ref: where the measurement is written
notes = ""

[match]                      # every rule must hold; the most specific profile wins
{match}
[[engines]]                  # tried in this order; the first that is accepted serves
kind = {kind}
device = "CPU"               # exact; AUTO, HETERO and MULTI are refused
precision = "f32"            # read back from the compiled engine
streams = "cores"
threads = 1
latency_threads = {latency}
{engine}
[limits]
rss_mib = 2048               # resident memory of the process after acceptance
job_timeout_s = 120
{heat}
[storage]
state_min_mib = 1024
sync_probe_ms_max = 200

# [[windows]]                # when to exchange with the hub
# start = "01:00"
# end = "05:00"
# tz = "UTC"

[[acceptance]]               # what the package's golden cases must show on the very unit
case = "*"
precision = "f32"
n = 200
p50_ms = 250                 # measure, then narrow
p99_ms = 1500
max_abs = 1e-4
max_rel = 1e-4
"""


def draft(board: Board, vendor: str, profile_id: str, name: str) -> str:
    """Return the text of a profile that this board meets."""
    x86 = board.arch == "x86_64"
    engine = (
        "properties = { ENABLE_CPU_PINNING = false }\n"
        'readback = { INFERENCE_PRECISION_HINT = "f32", EXECUTION_DEVICES = "CPU" }\n'
        if x86
        else 'properties = { "session.intra_op.allow_spinning" = "0" }\n'
        'readback = { providers = "CPUExecutionProvider" }\n'
    )
    zones = (
        "# temp_warn_c = 80\n# temp_stop_c = 95\n"
        f"# thermal_zones = {_text(list(board.thermal_zones))}\n"
    )
    return _DRAFT.format(
        id=_text(profile_id),
        vendor=_text(vendor),
        name=_text(name),
        digest=board.digest,
        match=_match(board),
        kind=_text("openvino" if x86 else "onnxruntime"),
        latency=min(board.cores, 4),
        engine=engine,
        heat=zones,
    )


def advice(profile: Profile) -> list[str]:
    """Return what is allowed and still asks for a second look."""
    found = []
    for choice in profile.engines:
        what = f"{choice.kind} {choice.device} {choice.precision}"
        if not profile.cases_for(choice.precision):
            found.append(f"{what}: no [[acceptance]] for {choice.precision}, so it never serves")
        if choice.kind == "openvino" and "INFERENCE_PRECISION_HINT" not in choice.readback:
            found.append(f"{what}: readback does not name INFERENCE_PRECISION_HINT")
        if choice.device != "CPU" and not profile.match.pci and not profile.match.dt_compatible:
            found.append(f"{what}: [match] names no device that would be {choice.device}")
    if profile.evidence == "unverified":
        found.append("evidence is unverified: the box shows that until it accepts the unit")
    if profile.limits.temp_stop_c is None:
        found.append("no temp_warn_c and temp_stop_c: heat stops nothing")
    if not profile.windows:
        found.append("no [[windows]]: the box's settings say when to exchange with the hub")
    return found


def _match(board: Board) -> str:
    lines = [f"arch = {_text(board.arch)}"]
    if board.dt_compatible:
        lines.append(f"dt_compatible = {_text([board.dt_compatible[0]])}")
    elif "product_name" in board.dmi:
        lines.append(f"dmi = {{ product_name = {_text(board.dmi['product_name'])} }}")
    lines.append(f"min_mem_mib = {max(256, board.memory_mib * 9 // 10)}")
    cpu = []
    if board.cpu_vendor:
        cpu.append(f"vendor = {_text(board.cpu_vendor)}")
    if board.cpu_family is not None and board.cpu_model is not None:
        cpu.append(f"family = {board.cpu_family}, model = [{board.cpu_model}]")
    if board.cpu_parts:
        cpu.append(f"implementer = {_text(board.cpu_implementer)}")
        cpu.append(f"part = {_text(list(board.cpu_parts))}")
    if board.level:
        cpu.append(f"level = {_text(board.level)}")
    cpu.append(f"min_cores = {board.cores}")
    lines.append(f"cpu = {{ {', '.join(cpu)} }}")
    seen = list(dict.fromkeys((one.vendor, one.device, one.driver) for one in board.pci))
    if seen:
        lines.append("# An accelerator that must be there, as one of the devices seen:")
    for vendor, device, driver in seen:
        bound = f", driver = [{_text(driver)}]" if driver else ""
        lines.append(f'# pci = [{{ vendor = "{vendor}", device = ["{device}"]{bound} }}]')
    return "\n".join(lines) + "\n"


def _text(value: str | list[str]) -> str:
    return json.dumps(value, ensure_ascii=False)  # a JSON string is a TOML basic string
