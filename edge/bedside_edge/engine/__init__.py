"""Inference engines behind the Engine port, the packages they load and the board they run on.

`import openvino` reports itself to an analytics service of its vendor unless the machine opted
out. Nothing on a box may call home, so the reporting package is made unimportable before any
runtime is imported; OpenVINO then takes the stub it ships for that case.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
