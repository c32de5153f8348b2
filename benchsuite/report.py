"""Draws speed.md, speed.png and scaling.png from the newest row of each case on each machine.

    python report.py book/src/benchmarks/speed.jsonl
"""

import datetime
import json
import math
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from cases import CASES, MEMORY, MEMORY_TARGET

GOOD, BAD, PLAIN = "#2a7f62", "#c1502e", "#5b6b7b"
AXES = {
    "batch": "batch, 32x32 pixels",
    "image": "pixels to a side, patches of 4",
    "k-network": "components K, network, batch 8",
    "k-mixture": "components K, arithmetic of 8 steps",
    "substeps": "sub-steps n, arithmetic of 8 steps",
    "steps": "steps, network and arithmetic, batch 4",
}
# The exponent of growth that is called a surprise; images grow by their area.
SURPRISE = 1.15


# What processors are called that tell of themselves no more than numbers.
CALLED = {"family 25 model 17": "Zen 4", "family 26 model 2": "Zen 5", "family 6 model 207": "Emerald Rapids"}


def newest(path):
    """The last row of each case, in the order of the list, by processor; the one that was measured last comes first."""
    machines, titles = {}, {case.name: case.title for case in CASES}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        # The list's words, not those of the row's day.
        row["title"] = titles.get(row["case"], row.get("title"))
        # The same processor has more names than one.
        cpu = called(row["machine"]["cpu"])
        # Behind the others, since what was measured last stands last.
        known = machines.pop(cpu, {})
        # Of roofs all, as the clock of a machine differs from day to day.
        entry = [*known.get("roofs", []), row] if row["case"] == "roofs" else row
        machines[cpu] = known | {row["case"]: entry}
    names = ["roofs", *(case.name for case in CASES)]
    return {cpu: {name: rows[name] for name in names if name in rows} for cpu, rows in reversed(machines.items())}


def share(row, roofs):
    """The operations by the definition in a second, as a part of the roof of all threads; none for what no roof was measured for."""
    case = next((case for case in CASES if case.name == row.get("case")), None)
    roof = nearest(roofs, row)["roofs"].get(case.roof) if roofs and case and case.roof else None
    if roof is None or "min" not in row["ours"]:
        return ""
    return f"{100 * case.gflop / row['ours']['min'] / roof['all']:.0f} %"


def nearest(roofs, row):
    """The roofs of the day that is nearest to a row's."""

    def day(row):
        return datetime.date.fromisoformat(row["date"][:10])

    return min(roofs, key=lambda other: abs(day(other) - day(row)))


def memory_rows(rows):
    """Rows of peak memory, from the processes that were timed."""
    for name, title in MEMORY.items():
        row = rows.get(name)
        if row is None or "peak_gb" not in row["ours"]:
            continue
        figure = lambda side: side if "error" in side else {"min": side["peak_gb"], "median": side["peak_gb"]}
        rivals = {mode: figure(side) for mode, side in row["rivals"].items()}
        ours = figure(row["ours"])
        least = min((side["min"] for side in rivals.values() if "min" in side), default=None)
        ratio = {} if least is None else {"ratio_min": least / ours["min"], "ratio_median": least / ours["min"]}
        shared = {key: row[key] for key in ("commit", "date", "machine", "versions", "command", "threads")}
        yield shared | {"title": title, "target": MEMORY_TARGET, "unit": "GB", "ours": ours, "rivals": rivals, **ratio}


def number(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def scaled(seconds):
    """Factor and unit that a time of seconds reads well in."""
    return (1, "s") if seconds >= 1 else (1e3, "ms")


def figures(side, factor):
    """Minimum / median."""
    if "error" in side:
        return "failed"
    low, middle = number(side["min"] * factor), number(side["median"] * factor)
    return low if low == middle else f"{low} / {middle}"


def table_row(row, roofs):
    factor, unit = scaled(row["ours"].get("min", 1)) if row["unit"] == "s" else (1, row["unit"])
    cells = [row["title"], "-" if row["target"] is None else number(row["target"])]
    if not row["rivals"]:
        cells[1] = f"at most {number(row['target'])} {unit if row['unit'] != 's' else 's'}"
        low = row["ratio_min"]
        return [*cells, "reached" if low >= 1 else "**missed**", "", f"{figures(row['ours'], factor)} {unit}", "", ""]
    if "ratio_min" in row:
        ratio = f"{row['ratio_min']:.2f} / {row['ratio_median']:.2f}"
        missed = row["target"] is not None and row["ratio_min"] < row["target"]
        cells.append(f"**{ratio}**" if missed else ratio)
    else:
        cells.append("-")
    cells += [share(row, roofs), f"{figures(row['ours'], factor)} {unit}"]
    eager = {mode: figures(side, factor) for mode, side in row["rivals"].items() if mode != "compile"}
    compiled = row["rivals"].get("compile")
    eager = ", ".join(text if mode == "eager" else f"{text} {mode}" for mode, text in eager.items())
    return [*cells, eager, figures(compiled, factor) if compiled else ""]


def table(rows, roofs):
    lines = ["| what | target | ratio | of the roof | gmflow | PyTorch eager | compiled |", "|---|---|---|---|---|---|---|"]
    return lines + [f"| {' | '.join(table_row(row, roofs))} |" for row in rows]


def roof_lines(row):
    """What the machine can do at most, in a list."""
    roofs, threads = row["roofs"], row["roofs"]["threads"]
    name = {"f32": "f32", "bf16": "bf16", "int8": "8-bit integers"}
    figures = [
        f"{name[key]} {roofs[key]['one']:.0f} and {roofs[key]['all']:.0f} GFLOP/s" for key in name if roofs.get(key) is not None
    ]
    if "memory" in roofs:
        figures.append(f"reading memory {roofs['memory']['one']:.0f} and {roofs['memory']['all']:.0f} GB/s")
    caches = [f"L{cache['level']} {cache['bytes'] >> 10} KiB" for cache in row.get("caches", [])]
    source = row["source"] if "source" in row else f"commit {row['commit']}, {row['date'][:10]}"
    lines = [f"- Roofs, one thread and {threads}: {', '.join(figures)} ({source})"]
    if caches:
        lines.append(f"- Caches: {', '.join(caches)}. `--precision auto` is {row['auto']}")
    return lines


def failures(rows):
    return [
        f"- {row['title']}, {name}: `{side['error']}`"
        for row in rows
        for name, side in {"gmflow": row["ours"], **row["rivals"]}.items()
        if "error" in side
    ]


def growth(name, points):
    """Exponents of growth between neighbours, ((from, to), exponent); of images by the number of pixels."""
    xs = sorted(points, key=int)
    for low, high in zip(xs, xs[1:]):
        span = math.log(int(high) / int(low)) * (2 if name == "image" else 1)
        yield (low, high), math.log(points[high] / points[low]) / span


def surprises(points):
    found = []
    for name, values in points.items():
        for (low, high), exponent in growth(name, values):
            if exponent > SURPRISE:
                factor = values[high] / values[low]
                found.append(f"- {AXES[name]}: {low} to {high} takes {factor:.2f} times as long (power {exponent:.2f})")
    return found


def distinct(rows, describe):
    return ", ".join(dict.fromkeys(describe(row) for row in rows))


def machine(row):
    m = row["machine"]
    memory = f", {m['memory_gb']} GB" if m["memory_gb"] else ""
    return f"{m['cores']} cores of {m['cpu']}{memory}, {' '.join(m['instructions'])}"


def called(cpu):
    """A name for a processor, and one for files."""
    name = next((name for numbers, name in CALLED.items() if numbers in cpu), cpu)
    maker = cpu.replace("(R)", "").partition(" (")[0].removesuffix(" Processor")
    title = cpu if name == cpu else f"{maker}, {name}"
    return title, "".join(c if c.isalnum() else "-" for c in name.lower())


def section(title, timed, picture, roofs):
    """What was measured on a machine."""
    v = timed[-1]["versions"]
    other = [f", {name} {v[key]}" for key, name in (("diffusers", "diffusers"), ("python", "Python"), ("rustc", "rustc")) if key in v]
    text = [
        "",
        f"## {title}",
        "",
        f"- Machine: {distinct(timed, machine)}; {timed[-1]['threads']} threads on both sides",
        f"- Commit: {distinct(timed, lambda row: row['commit'])}, {distinct(timed, lambda row: row['date'][:10])}",
        f"- PyTorch {v['torch']}{''.join(other)}",
        f"- Command: {distinct(timed, lambda row: '`' + row['command'] + '`')}",
        *(line for row in roofs or [] for line in roof_lines(row)),
        "",
        *table(timed, roofs),
    ]
    if failed := failures(timed):
        text += ["", "What failed:", *failed]
    return [*text, "", f"![Ratios to PyTorch beside what is to be reached]({picture})"]


def document(sections, scaling):
    text = [
        "# Speed against PyTorch",
        "",
        "Written by `benchsuite/report.py` from the newest row of each case and machine in [speed.jsonl](speed.jsonl). Do not edit it.",
        "",
        "- A cell has the shortest / the median sample. A sample is one call, or the mean of several if calls are short.",
        "- A ratio is the better of PyTorch's figures over ours: higher is better for gmflow, 1 is the same. It is bold if the shortest",
        "  samples miss the target.",
        "- Ours and PyTorch's took turns, each in a process of its own, with the same number of samples. A first call does not count.",
        "- Compiled predictions have their weights laid out again (freezing). Only the time after compiling counts.",
        "- `of the roof`: the operations by the definition of products and convolutions in a second, as a part of what the arithmetic",
        "  units do at most (`gmflow info --machine`). Winograd's convolutions need a quarter of the operations of the definition.",
        "  The roof is the one that was measured nearest in time: clocks differ by some percent from day to day. That of bf16 is the",
        "  dot product's; where it is slow, bf16 is multiplied as f32 and may be above it.",
        *sections,
    ]  # fmt: skip
    if scaling:
        text += [
            "", "## How cost grows", "",
            "The fastest of ten samples of `cargo bench --bench scaling`: a GM-DiT of 4 layers of 4 heads of 64 channels, f32, and the",
            "arithmetic of a guided run of 8 steps on 8 latents of 32x32x4. The dashed line is in proportion to the number below; for images",
            f"to the number of pixels, so that attention shows. On {called(scaling['machine']['cpu'])[0]}, commit {scaling['commit']}.", "",
            "![Time against batch, components, image size, sub-steps and steps](scaling.png)", "",
        ]  # fmt: skip
        found = surprises(scaling["points"])
        steep = f"Steeper than the power {SURPRISE} between neighbours:"
        text += [steep, *found] if found else [f"Nothing is steeper than the power {SURPRISE} between neighbours."]
    return "\n".join(text) + "\n"


def draw_ratios(rows, path):
    """Bars of the ratios on a logarithmic scale, each with a mark at its target."""
    rows = [row for row in rows if row["rivals"] and "ratio_min" in row][::-1]
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(9.5, 1.2 + 0.32 * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        ratio, target = row["ratio_min"], row["target"]
        colour = PLAIN if target is None else GOOD if ratio >= target else BAD
        axes.barh(y, ratio - 1, left=1, height=0.62, color=colour)
        # Beside the bar, and beyond the mark where that is near.
        near = target is not None and ratio < target < 1.5 * ratio
        label_at, align = (ratio / 1.06, "right") if ratio < 1 else ((target if near else ratio) * 1.06, "left")
        axes.text(label_at, y, f"{ratio:.2f}", va="center", ha=align, fontsize=9)
        if target is not None:
            axes.plot([target, target], [y - 0.42, y + 0.42], color="black", lw=2, zorder=3)
    ratios = [row["ratio_min"] for row in rows] + [row["target"] or 1 for row in rows]
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, min(ratios) / 1.5), max(ratios) * 1.5)
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [row["title"] for row in rows], fontsize=9)
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("PyTorch / gmflow, higher is better; black: to be reached")
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def draw_scaling(points, path):
    figure, panels = plt.subplots(2, 3, figsize=(11, 6.4), layout="constrained")
    for axes, (name, label) in zip(panels.flat, AXES.items()):
        values = {int(x): seconds * 1e3 for x, seconds in points[name].items()}
        xs = list(values)
        power = 2 if name == "image" else 1
        last = values[xs[-1]]
        axes.plot(xs, [last * (x / xs[-1]) ** power for x in xs], "--", color="#999999", lw=1)
        axes.plot(xs, list(values.values()), "o-", color=GOOD, ms=4)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(xs, [str(x) for x in xs])
        axes.minorticks_off()
        low, high = min(values.values()), max(values.values())
        axes.set_ylim(low / 2, high * 2)
        ticks = [m * 10.0**e for e in range(-2, 6) for m in (1, 2, 5) if low / 2 <= m * 10.0**e <= high * 2]
        ticks = ticks if len(ticks) <= 7 else [t for t in ticks if f"{t:e}"[0] == "1"]
        axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("ms")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    record = pathlib.Path(sys.argv[1])
    sections, growing = [], None
    for index, ((name, slug), rows) in enumerate(newest(record).items()):
        scaling, roofs = rows.pop("scaling", None), rows.pop("roofs", None)
        growing = growing or scaling
        timed = [*rows.values(), *memory_rows(rows)]
        if timed:
            picture = record.with_name(f"{record.stem}{f'-{slug}' if index else ''}.png")
            sections += section(name, timed, picture.name, roofs)
            draw_ratios(timed, picture)
    record.with_suffix(".md").write_text(document(sections, growing))
    if growing:
        draw_scaling(growing["points"], record.with_name("scaling.png"))


if __name__ == "__main__":
    main()
