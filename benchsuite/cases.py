"""What is measured, and how fast it is to be."""

from dataclasses import dataclass

EAGER = ("eager", "compile")


@dataclass(frozen=True)
class Case:
    """One row of the table.

    `target` is a ratio, rival / ours; where there is no rival, the most that ours may be, in `unit`.
    """

    name: str
    title: str
    target: float | None
    kind: str = "bench"
    bench: str = ""
    ours: str = ""
    rival: str = ""
    modes: tuple = EAGER
    group: str = ""
    quick_rounds: int = 2
    memory: bool = False
    unit: str = "s"
    precision: str = "bf16"
    # A sample of a student in one network call, in place of a guided one.
    student: bool = False
    # Operations of a call by the definition of its products and convolutions (PyTorch's FlopCounterMode), and the roof that they are
    # measured by.
    gflop: float | None = None
    roof: str | None = None


def xl(precision, target, modes):
    """Forward passes; in int8 against what PyTorch computes in bf16."""
    of_rival = "f32" if precision == "f32" else "bf16"
    what = "GM-DiT-XL/2 forward, {}, batch {}"
    return [
        Case(
            name=f"xl_forward/{precision}/{batch}",
            title=what.format(precision, batch),
            target=target,
            bench="networks",
            ours=f"xl_forward/{precision}/{batch}",
            rival=f"xl_forward/{of_rival}/{batch}",
            modes=modes,
            group=f"xl {of_rival}",
            quick_rounds=1 if batch == 8 or (precision, batch) == ("f32", 2) else 2,
            gflop=237.3 * batch,
            roof=precision,
        )
        for batch in (1, 2, 8)
    ]


def training(name, title, target, **others):
    return Case(name, title, target, bench="networks", ours=name, rival=name, group=name, **others)


SOLVERS = {
    "ode2-n1": "GM-ODE 2, n = 1",
    "ode2-n4": "GM-ODE 2, n = 4",
    "ode2-n16": "GM-ODE 2, n = 16",
    "sde2-spectral": "GM-SDE 2, spectral",
}


def mixture():
    cases = []
    for solver, title in SOLVERS.items():
        for batch in (1, 8):
            name = f"sampling/{solver}/{batch}"
            title_ = f"arithmetic of 8 guided steps, {title}, batch {batch}"
            cases.append(Case(name, title_, 5, bench="mixture", ours=name, rival=name, group="mixture"))
    loss = "transition loss and its gradient, 32x8x3x32x32, against {}"
    for mode, target in (("eager", 3), ("compile", 1)):
        name = f"loss/transition, {mode}"
        shared = dict(bench="mixture", ours="loss/transition", rival="loss/transition", group="mixture")
        cases.append(Case(name, loss.format("eager" if mode == "eager" else "compiled"), target, modes=(mode,), **shared))
    return cases


CASES = [
    Case("help", "`gmflow --help`, file cache emptied", 50, kind="help", unit="ms"),
    Case("size", "size of the binary", 40, kind="size", unit="MB"),
    Case("sample mnist", "`gmflow sample --checkpoint models/mnist --num 16 --grid`", 2, kind="mnist"),
    *mixture(),
    training("mlp_training/512x4096", "2-D MLP 5x512, batch 4096, K = 64, training step", 1.5, gflop=32.5, roof="f32"),
    training("mlp_training/512x4096-bf16", "the same perceptron, training step, bf16 against autocast", None, gflop=32.5, roof="bf16"),
    training("small_dit_training/f32", "DiT 12 layers, 6x64, 64 tokens, batch 32, training step, f32", 1.4, memory=True, gflop=272.2, roof="f32"),
    training("small_dit_training/bf16", "the same DiT, training step, bf16 against autocast", 1.0, gflop=272.2, roof="bf16"),
    training("unet_training/8", "U-Net of CIFAR-10, batch 8, training step", None, gflop=300.2, roof="f32"),
    training("small_unet_training/f32", "small U-Net, 64 128 128 channels, batch 64, training step, f32", None, gflop=555.6, roof="f32"),
    training("small_unet_training/bf16", "small U-Net, training step, bf16 against autocast", 1.5, gflop=555.6, roof="bf16"),
    Case(
        "decode/32x32x4", "autoencoder, 32x32x4 to 256x256x3", 1.0,
        bench="decode", ours="decode/32x32x4", rival="decode/32x32x4", group="decode", gflop=622.2, roof="f32",
    ),
    Case(
        "sample xl", "XL/2, guided, 6 steps of GM-ODE 2, decoded, from process start to PNG, in bf16", 1.5,
        kind="sample", modes=("bf16", "f32"), memory=True,
    ),
    Case(
        "sample xl int8", "the same in int8, against bf16", 1.5,
        kind="sample", modes=("bf16",), memory=True, precision="int8",
    ),
    Case(
        "sample xl student", "XL/2, a student of 32 components in one call, decoded, from process start to PNG, in bf16", 2.0,
        kind="sample", modes=("bf16", "f32"), memory=True, student=True,
    ),
    *xl("bf16", 1.0, ("eager", "compile", "autocast")),
    *xl("int8", 1.0, EAGER),
    *xl("f32", 1.3, EAGER),
    Case("scaling", "how cost grows", None, kind="scaling"),
]  # fmt: skip


def on_gpu():
    """What is measured on a GPU, beside PyTorch there; no targets are set."""
    cases = [
        Case(
            f"xl_forward/{precision}/{batch}", f"GM-DiT-XL/2 forward, {precision}, batch {batch}", None,
            bench="networks", ours=f"xl_forward/{precision}/{batch}", rival=f"xl_forward/{precision}/{batch}",
            group=f"xl {precision}", quick_rounds=1, gflop=237.0 * batch,
        )
        for precision in ("bf16", "f32")
        for batch in (1, 32, 125)
    ]  # fmt: skip
    cases += [case for case in CASES if case.name.startswith("small_dit_training")]
    for solver, title in SOLVERS.items():
        for batch in (8, 125):
            name, title_ = f"sampling/{solver}/{batch}", f"arithmetic of 8 guided steps, {title}, batch {batch}"
            cases.append(Case(name, title_, None, bench="mixture", ours=name, rival=name, group="mixture", quick_rounds=1))
    return cases + [case for case in CASES if case.name.startswith("loss/transition")]


# Peak memory comes from the processes of these cases.
MEMORY = {
    "sample xl": "peak memory of sampling XL/2 in bf16",
    "sample xl int8": "peak memory of sampling XL/2 in int8",
    "small_dit_training/f32": "peak memory of the small DiT's training, f32",
}
MEMORY_TARGET = 1.25
