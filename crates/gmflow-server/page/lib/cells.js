// The cells of a sweep: what was measured of a model with a solver, steps and guidance.

/** The figures of a measurement by their names, such as `frechet_distance` or `kernel_distance.mean`. */
export function figuresOf(metrics, prefix = "", out = {}) {
  for (const [name, value] of Object.entries(metrics ?? {})) {
    const path = prefix ? `${prefix}.${name}` : name;
    if (typeof value === "number") out[path] = value;
    else if (value !== null && typeof value === "object" && !Array.isArray(value)) figuresOf(value, path, out);
  }
  return out;
}

/** Whether less of a figure is better. */
export const isBetterLow = (name) => /distance|difference|variation|divergence|nll|bits|loss|mmd/.test(name);

/** Cells as points of charts; those that failed are counted by their errors. */
export function readCells(cells) {
  const points = [];
  const errors = new Map();
  for (const { model, label, row, error } of cells) {
    if (error) errors.set(error, (errors.get(error) ?? 0) + 1);
    if (!row?.sampler) continue;
    const { steps, guidance, cfg } = row.sampler;
    const isCfg = cfg !== undefined && cfg !== null;
    points.push({
      curve: `${model}, ${label}`,
      steps,
      guidance: isCfg ? cfg : (guidance ?? 0),
      isCfg,
      figures: figuresOf(row.metrics),
    });
  }
  return { points, errors };
}

/** Names of all figures, those that people look at first in front. */
export function figureNames(points) {
  const first = ["frechet_distance", "total_variation", "precision", "recall", "inception_score"];
  const names = [...new Set(points.flatMap((point) => Object.keys(point.figures)))];
  const rank = (name) => (first.includes(name) ? first.indexOf(name) : first.length);
  return names.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}

/** A figure by the number of steps: of every curve and number of steps the best over the guidance. */
export function bySteps(points, name) {
  const sign = isBetterLow(name) ? 1 : -1;
  const curves = new Map();
  for (const { curve, steps, guidance, isCfg, figures } of points) {
    const value = figures[name];
    if (!Number.isFinite(value)) continue;
    const best = curves.get(curve) ?? curves.set(curve, new Map()).get(curve);
    const old = best.get(steps);
    if (!old || sign * value < sign * old.value) best.set(steps, { value, guidance, isCfg });
  }
  return [...curves].map(([curve, best]) => ({
    curve,
    points: [...best].sort(([a], [b]) => a - b).map(([steps, { value }]) => [steps, value]),
  }));
}

/** A figure by the guidance in `wanted` steps; only curves with more than one guidance. */
export function byGuidance(points, name, wanted) {
  const curves = new Map();
  for (const { curve, steps, guidance, isCfg, figures } of points) {
    if (steps !== wanted || !Number.isFinite(figures[name])) continue;
    const key = isCfg ? `${curve}, CFG` : curve;
    (curves.get(key) ?? curves.set(key, []).get(key)).push([guidance, figures[name]]);
  }
  return [...curves]
    .filter(([, list]) => new Set(list.map(([x]) => x)).size > 1)
    .map(([curve, list]) => ({ curve, points: list.sort(([a], [b]) => a - b) }));
}

/** The numbers of steps that were measured. */
export const stepsOf = (points) => [...new Set(points.map((point) => point.steps))].sort((a, b) => a - b);
