"""The label that a prepared row carries: which verifier grades it, and what the right answer is.

OpenRLHF hands a reward function the label and nothing else of a row, so the label has to say both. It is always a
JSON object, and so a string for every reader: a bare `033` would come back from a JSON-lines file as the number 33.
"""

from __future__ import annotations

import json

VERIFIERS = ("math", "geometry", "code")
DEFAULT_VERIFIER = "math"


def write_label(verifier: str, gold: str) -> str:
    """`{"verifier": …, "gold": …}`. Raises `ValueError` for an unknown verifier and a gold that is empty or no string.

    The gold of `math` and `geometry` is the right answer, that of `code` a test set or the path of its file.
    """
    if verifier not in VERIFIERS:
        raise ValueError(f"verifier {verifier!r} is not known; one of: {', '.join(VERIFIERS)}")
    if not isinstance(gold, str) or not gold.strip():
        raise ValueError(f"gold {gold!r} is not allowed: a string that is not empty")
    return json.dumps({"verifier": verifier, "gold": gold}, ensure_ascii=False)


def read_label(label: str) -> tuple[str, str]:
    """(verifier, gold). Any string that is not such an object is the right answer of a `math` problem, as it stands.

    Raises `ValueError` for an empty label, a label that is no string, or an unknown verifier.
    """
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label {label!r} is not allowed: a string that is not empty (is --data.label_key set?)")
    if label.lstrip().startswith("{"):
        try:
            fields = json.loads(label)
        except ValueError:
            fields = {}
        if isinstance(fields, dict) and fields.keys() == {"verifier", "gold"}:
            write_label(**fields)
            return fields["verifier"], fields["gold"]
    return DEFAULT_VERIFIER, label
