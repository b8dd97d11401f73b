"""Bench 4: cold start to ready, and resident memory before and after work."""

from bench.engines import PATH
from bench.objects import bundled_chest, ct_template, serials
from bench.plan import Plan
from bench.processes import Helper, box, scratch
from bench.report import Row, limit_row, median

START = "start"


def run(plan: Plan) -> list[Row]:
    """Start the box several times; give the last one work and look at its memory."""
    rows: list[Row] = []
    taken: list[float] = []
    with scratch() as folder, Helper("bench.client") as client:
        for _ in range(plan.rounds):
            with box(folder) as served:
                taken.append(served.to_ready_s)
        case = "start of the process to 200 from /readyz, fresh state folder"
        rows.append(limit_row(START, case, median(taken), "s", at_most=3.0))
        with box(folder) as served:
            idle = served.resident_mb()
            chest = folder / "chest.dcm"
            chest.write_bytes(bundled_chest())
            template = ct_template(512, 512)
            paths = []
            for name in ("head", "tail"):
                path = folder / name
                path.write_bytes(getattr(template, name))
                paths.append(str(path))
            peaks = []
            for _ in range(plan.rounds):
                client.ask(
                    "throughput",
                    port=served.http_port,
                    path=PATH,
                    headers={"Content-Type": "application/dicom"},
                    body=str(chest),
                    connections=4,
                    seconds=plan.seconds * 2,
                )
                client.ask(
                    "stow",
                    port=served.http_port,
                    template=paths,
                    first=serials(200),
                    requests=20,
                    per_request=10,
                    connections=4,
                )
                served.settle()
                peaks.append(served.resident_mb())
            client.ask("hang_up", port=served.http_port)
    rows.append(limit_row(START, "resident memory, ready and idle", idle, "MB"))
    rows.append(limit_row(START, "after the first round of DICOM bodies and STOW", peaks[0], "MB"))
    rows.append(limit_row(START, f"after round {len(peaks)}", peaks[-1], "MB"))
    return rows
