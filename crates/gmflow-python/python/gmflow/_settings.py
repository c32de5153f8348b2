"""Settings of samplers as the library reads them."""

from __future__ import annotations

from typing import Any

from ._checks import guidance as scale_of_guidance
from ._checks import plain, whole


def sampler_config(
    solver: Any,
    steps: int,
    *,
    order: int | None = None,
    substeps: int | None = None,
    guidance_scale: float = 0.0,
    cfg_scale: float | None = None,
    orthogonal: float | None = None,
    guidance_interval: Any = None,
    shift: float = 1.0,
    reweight_by: str = "image",
    second_order: dict | None = None,
) -> dict:
    """All settings of a sampler; what is not given is the library's default."""
    steps = whole("steps", steps, 1)
    guidance_scale = scale_of_guidance(guidance_scale)
    cfg_scale, orthogonal = plain("cfg_scale", cfg_scale), plain("orthogonal", orthogonal)
    if isinstance(solver, dict):
        table = dict(solver)
    else:
        table = {"kind": solver}
    if order is not None:
        table["order"] = order
    if substeps is not None:
        table["substeps"] = substeps
    if cfg_scale is not None:
        if guidance_scale:
            raise ValueError("cfg_scale: expected no guidance_scale beside it")
        guidance = {"kind": "classifier-free", "scale": cfg_scale, "orthogonal": 0.0 if orthogonal is None else orthogonal}
    elif guidance_scale:
        guidance = {"kind": "probabilistic", "scale": guidance_scale, "orthogonal": 1.0 if orthogonal is None else orthogonal}
    else:
        guidance = {"kind": "off"}
    config = {"solver": table, "steps": steps, "guidance": guidance, "shift": shift, "reweight_by": reweight_by}
    if guidance_interval is not None:
        config["guidance_interval"] = guidance_interval
    if second_order is not None:
        config["second_order"] = second_order
    return {name: plain(name, value) for name, value in config.items()}
