"""Results of commands as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(result: Any) -> str:
    """Return a command's result as JSON: dataclasses as objects, arrays as lists."""
    return json.dumps(plain(result), indent=1, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return a value converted to JSON's types; infinite numbers and nan become None."""
    if hasattr(value, "as_json"):
        return plain(value.as_json())
    if dataclasses.is_dataclass(value):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        verdict = getattr(value, "verdict", None)  # a property of some results
        return {"verdict": verdict} | fields if verdict else fields
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):  # numpy's
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)
