"""What the box does not need in order to start, it does not import: it must be ready in seconds."""

import subprocess
import sys


def test_the_object_makers_and_the_http_client_wait_until_they_are_needed():
    code = (
        "import sys, bedside_edge.box, bedside_edge.outgoing;"
        "late = {'highdicom', 'httpx', 'sklearn', 'torch', 'diffprivlib', 'dp_accounting', 'fhir'}"
        " & set(sys.modules);"
        "sys.exit(' '.join(sorted(late)) or 0)"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (seen.returncode, seen.stderr) == (0, "")
