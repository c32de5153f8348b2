"""Arrays of NumPy and PyTorch to memory that the library reads, and back.

What is `float32` in C order on the CPU is handed over without a copy; other floating-point arrays are converted, and those on another
device go through the host. Integers, booleans, complex numbers and objects are refused.
"""

from __future__ import annotations

import sys
from typing import Any

from ._checks import is_scalar, whole, whole_list, wrong
from ._errors import ConfigError

# The largest seed.
LAST_SEED = 2**64 - 1

# Conversions that had to copy, for tests.
copies = 0


def is_torch(x: Any) -> bool:
    """Whether `x` is a tensor of PyTorch, which is not imported for the question."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def to_numpy(what: str, x: Any) -> Any:
    """`x` as an array of `float32` in C order, of the same memory where that can be."""
    global copies
    import numpy as np

    if is_torch(x):
        x = x.detach()
        if not x.dtype.is_floating_point:
            raise TypeError(f"{what}: expected floating-point numbers, got {x.dtype}")
        if x.device.type != "cpu":
            copies += 1
            x = x.cpu()
        # NumPy has no bfloat16.
        array = x.numpy() if str(x.dtype) in ("torch.float32", "torch.float64", "torch.float16") else None
        if array is None:
            copies += 1
            array = x.float().numpy()
    elif isinstance(x, np.ndarray):
        array = x
    elif hasattr(x, "__dlpack__"):
        array = np.from_dlpack(x)
    else:
        array = np.asarray(x)
        if array.dtype.kind in "iu" and not hasattr(x, "__array__"):
            array = array.astype(np.float32)  # Numbers and lists of them, written without a point.
    if array.dtype.kind != "f":
        raise TypeError(f"{what}: expected floating-point numbers, got {array.dtype}")
    if array.dtype == np.float32 and array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned:
        return array
    copies += 1
    return np.require(array, np.dtype("=f4"), ["C", "A"])


def to_native(what: str, x: Any) -> Any:
    """The same as the library takes it: (address, shape, owner) of a tensor that fits, which takes a third of the time of an array."""
    torch = sys.modules.get("torch")
    if (
        torch is not None
        and isinstance(x, torch.Tensor)
        and x.dtype is torch.float32
        and x.layout is torch.strided
        and x.is_cpu
        and x.is_contiguous()
        and not x.is_neg()
    ):
        # What shares its memory keeps it, whatever becomes of the tensor.
        return x.data_ptr(), x.shape, x.detach()
    return to_numpy(what, x)


def from_native(buffer: Any, like: Any = None) -> Any:
    """An array of the library's memory, which it keeps alive; a tensor on the device of `like` where that is one of PyTorch."""
    import numpy as np

    array = np.asarray(buffer)
    if like is None or not is_torch(like):
        return array
    import torch

    tensor = torch.from_numpy(array)
    return tensor if like.device.type == "cpu" else tensor.to(like.device)


def seeds_of(seeds: Any, count: int | None, generator: Any = None) -> list[int]:
    """One seed for each of `count` samples: those given, or drawn from a generator, or 0, 1, 2 and so on."""
    if seeds is not None:
        if generator is not None:
            raise TypeError("seeds: expected no generator beside them")
        if is_scalar(seeds):
            first, count = whole("seeds", seeds, 0, LAST_SEED), 1 if count is None else count
            if first + count - 1 > LAST_SEED:
                raise ConfigError(f"seeds: expected at most 2**64 - {count} as the first of {count}, got {first}")
            return list(range(first, first + count))
        if isinstance(seeds, (str, bytes)):
            raise wrong("seeds", "a whole number or a list of them", seeds)
        wanted = whole_list("seeds", seeds, 0, LAST_SEED)
        if count is None and not wanted:
            raise ConfigError("seeds: expected at least one, got an empty list")
        if count is not None and len(wanted) != count:
            raise ConfigError(f"seeds: expected {count}, one for each sample, got {len(wanted)}")
        return wanted
    count = 1 if count is None else count
    if generator is None:
        return list(range(count))
    if isinstance(generator, (list, tuple)):
        if len(generator) != count:
            raise ConfigError(f"generator: expected {count}, one for each sample, got {len(generator)}")
        return [seeds_of(None, 1, one)[0] for one in generator]
    if hasattr(generator, "integers"):  # numpy.random.Generator
        return [int(x) for x in generator.integers(0, 2**63, size=count)]
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(generator, torch.Generator):
        raise wrong("generator", "a numpy.random.Generator, a torch.Generator or a list of them", generator)
    return [int(x) for x in torch.randint(0, 2**63 - 1, (count,), generator=generator, device=generator.device)]
