"""flwr's SecAgg+ beside ours: the same n, d and dropped boxes, in the same run of one machine.

flwr lives in an environment of its own (`make bench-flwr`); its workflow and client mod are its
own, see `flwr_peer.py`. Both sides are counted in CPU seconds without network and disk: ours by
the simulation, which runs the same state machines as box, helper and hub.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bedside_sync.hub.simulate import simulate

WORDS = 1_000_000
# n, shares, threshold as a share of them, repeats
CASES = ((10, 10, 0.67, 5), (100, 21, 0.62, 2), (100, 100, 0.67, 1))
SECURITY = {
    "flwr": "mask seeds folded to 28 bits; no signatures; honest but curious hub and clients",
    "ours": "256-bit seeds, AES-128 masks; every report and set signed; hub + t helpers malicious",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """CPU seconds, bytes, and how far the sum or mean was off."""

    client_s: float
    upload: int
    after_s: float  # hub, and ours: with the slowest helper
    error: float


def theirs(python: Path, nodes: int, shares: int, threshold: float, repeats: int) -> Side:
    """flwr's round; medians over the repeats."""
    peer = Path(__file__).with_name("flwr_peer.py")
    words = [str(python), str(peer), *map(str, (nodes, WORDS, nodes // 10, shares, threshold))]
    runs = [
        json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
        for _ in range(repeats)
    ]
    return Side(
        client_s=median(one["client_s"] for one in runs),
        upload=max(one["upload_bytes"] for one in runs),
        after_s=median(one["hub_s"]["unmask"] for one in runs),
        error=max(one["error"] for one in runs),
    )


def ours(nodes: int, repeats: int) -> Side:
    """Our round, simulated with the same rules; noise left out on both sides."""
    runs = [simulate(nodes, words=WORDS, drop=0.1, noise=False) for _ in range(repeats)]
    return Side(
        client_s=median(one.box_s for one in runs),
        upload=max(one.upload_bytes for one in runs),
        after_s=median(one.hub_s + one.helper_s for one in runs),
        error=0.0 if all(one.exact for one in runs) else float("inf"),
    )


def main() -> None:
    """Print the table; `sys.argv[1]` is the interpreter that has flwr."""
    python = Path(sys.argv[1])
    console = Console()
    load = ", ".join(f"{one:.2f}" for one in os.getloadavg())
    console.print(f"d = {WORDS} words, a tenth dropped; CPU seconds; load average {load}")
    table = Table("case", "what", "ours", "flwr 1.41.0", "ours/flwr")
    for nodes, shares, threshold, repeats in CASES:
        mine, other = (
            ours(nodes, max(repeats, 2)),
            theirs(python, nodes, shares, threshold, repeats),
        )
        case = f"n = {nodes}; {shares} shares, t = {round(threshold * shares)}"
        rows = (
            ("client, ms", 1000 * mine.client_s, 1000 * other.client_s),
            ("upload, MB", mine.upload / 1e6, other.upload / 1e6),
            ("after the last report, s", mine.after_s, other.after_s),
        )
        for what, a, b in rows:
            table.add_row(case, what, f"{a:.3g}", f"{b:.3g}", f"{a / b:.4f}")
            case = ""
        table.add_row("", "largest error of the mean", f"{mine.error:g}", f"{other.error:.1e}", "")
    console.print(table)
    console.print("ours: m = 4 helpers, t = 1; hub and the slowest helper together")
    for side, words in SECURITY.items():
        console.print(f"security, {side}: {words}")
    console.print(f"load average at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
