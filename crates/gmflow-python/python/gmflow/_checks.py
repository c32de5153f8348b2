"""Arguments as the library reads them. What does not fit is refused with its name, what is expected, and what it is."""

from __future__ import annotations

import math
import operator
import os
from typing import Any

from ._errors import ConfigError, NotFoundError


def got(value: Any) -> str:
    """A few words for a value in a message: itself, or its type where that could be long."""
    if hasattr(value, "tolist") and getattr(value, "ndim", None) == 0:
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float)):
        return str(value)
    if isinstance(value, str):
        return f"the text {value!r}"
    return f"a {type(value).__name__}"


def wrong(name: str, expected: str, value: Any) -> ConfigError:
    """The error for a value."""
    return ConfigError(f"{name}: expected {expected}, got {got(value)}")


def whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number, of Python, NumPy or PyTorch. True and False are none."""
    below = "" if most is None else f" and at most {'2**64 - 1' if most == 2**64 - 1 else most}"
    number = None
    if not _is_bool(value) and getattr(value, "ndim", 0) == 0:
        try:
            number = operator.index(value)
        except TypeError:
            pass
    if number is None:
        raise wrong(name, f"a whole number of at least {least}{below}", value)
    if number < least or most is not None and number > most:
        raise wrong(name, f"at least {least}{below}", number)
    return number


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def whole_list(name: str, values: Any, least: int, most: int | None = None) -> list[int]:
    """Whole numbers of a list, a range or an array; one number is a list of one."""
    return [whole(name, value, least, most) for value in as_list(name, values, "whole numbers")]


def as_list(name: str, values: Any, of: str) -> list:
    """The values of a list, a range or an array; what is no list is a list of one."""
    if isinstance(values, (str, bytes, dict, set)) or is_scalar(values):
        return [values]
    try:
        return list(values)
    except TypeError:
        raise wrong(name, f"a list of {of}", values) from None


def is_scalar(value: Any) -> bool:
    """Whether a value is one number."""
    ndim = getattr(value, "ndim", None)
    return isinstance(value, (bool, int, float)) or (hasattr(value, "__index__") if ndim is None else ndim == 0)


def guidance(value: Any) -> float:
    """A scale of probabilistic guidance."""
    expected = "a number in [0, 1)"
    if _is_bool(value) or isinstance(value, str):
        raise wrong("guidance_scale", expected, value)
    try:
        scale = float(value)
    except (TypeError, ValueError):
        raise wrong("guidance_scale", expected, value) from None
    if not 0 <= scale < 1:
        raise wrong("guidance_scale", expected, scale)
    return scale


def plain(name: str, value: Any) -> Any:
    """A setting in the types that JSON has: numbers of NumPy and PyTorch become Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(name, "a finite number", value)
    if isinstance(value, dict):
        return {key: plain(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(name, item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise wrong(name, "a number, text, a list or a dict", value)


def one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Refuses what is none of the words that are known."""
    if not isinstance(value, str) or value not in known:
        raise wrong(name, f"{', '.join(known[:-1])} or {known[-1]}", value)


def existing(name: str, path: Any) -> str:
    """A path where something is."""
    path = os.fspath(path)
    if not os.path.exists(path):
        raise NotFoundError(f"{name}: expected a file or folder, got {path}, which does not exist")
    return path
