"""Reads a distribution's own metadata and says whether it is under a strong copyleft licence.

Held: GPL, AGPL and LGPL in every version. Allowed: permissive licences, and MPL-2.0 (certifi,
hypothesis, pathspec), whose copyleft ends at the file and asks nothing of what calls it. GPL with
the GCC runtime exception is allowed too: numpy and scipy wheels carry that compiler run time.
"""

import re
from email.message import Message

# Its metadata says MIT, the library it links says GPL-3: banned by name, so that no change of
# classifier lets it in. It would come with pylibjpeg[all], pylibjpeg[libjpeg], highdicom[libjpeg].
BANNED = frozenset({"pylibjpeg-libjpeg"})

_STRONG = re.compile(r"\b[AL]?GPL(?:v?\d)?\b|GNU (?:Affero |Lesser |Library )?General Public", re.I)
_EXCEPTION = re.compile(r"\bGPL-3\.0(?:-only|-or-later)? WITH GCC-exception-3\.1\b")


def objections(metadata: Message) -> list[str]:
    """Every statement in the metadata that names a strong copyleft licence; empty is good."""
    name = re.sub(r"[-_.]+", "-", metadata["Name"]).lower()
    found = [f"{name}: banned by name"] if name in BANNED else []
    statements = [
        value for value in metadata.get_all("Classifier", []) if value.startswith("License")
    ]
    expression = metadata.get("License-Expression")
    if expression:
        statements.append(_EXCEPTION.sub("", expression))
    # The old free field sometimes holds whole licence texts, bundled ones included: read only
    # the form that states a licence in one line.
    stated = (metadata.get("License") or "").strip()
    if stated and "\n" not in stated:
        statements.append(stated)
    return found + [f"{name}: {statement}" for statement in statements if _STRONG.search(statement)]
