"""The label of a prepared row: which verifier grades it, and the right answer.

OpenRLHF passes only the label of a row to a reward function. So the label holds both, as the text of a JSON object.
Every reader keeps such a text as a string, while a bare `033` would come back from a JSON-lines file as the number 33.
"""

from __future__ import annotations

import json
import re

from riskpo_openrlhf.verifiers.code.shapes import is_test_set

VERIFIERS = ("math", "geometry", "code")  # `reward_func.VERIFY` has the function of each
DEFAULT_VERIFIER = "math"


def write_label(verifier: str, gold: str) -> str:
    """Return `{"verifier": …, "gold": …}`. Raises `ValueError` for an unknown verifier, and unless the gold is a text.

    The gold of `math` and `geometry` is the right answer. The gold of `code` is a test set or the path of its file.
    """
    if verifier not in VERIFIERS:
        raise ValueError(f"verifier {verifier!r} is not known; one of: {', '.join(VERIFIERS)}")
    if not isinstance(gold, str) or not gold.strip():
        raise ValueError(f"gold {gold!r} is not allowed: a string that is not empty")
    return json.dumps({"verifier": verifier, "gold": gold}, ensure_ascii=False)


def read_label(label: str) -> tuple[str, str]:
    """Return `(verifier, gold)`. A test set of any known shape is for `code`. Any other string is a `math` answer.

    Raises `ValueError` for an empty label, a label that is no string, an unknown verifier, and any other JSON object
    or list that holds something else than numbers, such as another framework's.
    """
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label {label!r} is not allowed: a string that is not empty (is --data.label_key set?)")
    if label.lstrip().startswith(("{", "[")):
        try:
            fields = json.loads(label)
        except (ValueError, RecursionError):
            fields = {}
        if isinstance(fields, dict) and fields.keys() == {"verifier", "gold"}:
            write_label(**fields)
            return fields["verifier"], fields["gold"]
        if is_test_set(fields):
            return "code", label
        if fields and re.search(r'["{tfn]', label):  # something else than numbers
            names = f"object with the fields {', '.join(map(repr, fields))}"
            raise ValueError(
                f"the label is a JSON {names if isinstance(fields, dict) else 'list that is no test set'}: write the "
                "right answer itself, or `write_label(verifier, answer)` of riskpo_openrlhf.verifiers.labels"
            )
    return DEFAULT_VERIFIER, label
