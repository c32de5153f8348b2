// A stand-in for a model: mixtures over digits that are drawn with strokes. They look right and mean nothing.

export const SIZE = 28;
const STROKES = [
  [
    [9, 14],
    [10, 8],
    [14, 5],
    [18, 8],
    [19, 14],
    [18, 20],
    [14, 23],
    [10, 20],
    [9, 14],
  ],
  [
    [11, 9],
    [15, 5],
    [15, 23],
  ],
  [
    [9, 9],
    [12, 5],
    [17, 6],
    [18, 10],
    [14, 16],
    [9, 22],
    [19, 22],
  ],
  [
    [10, 6],
    [16, 5],
    [18, 9],
    [13, 13],
    [18, 17],
    [17, 22],
    [10, 22],
  ],
  [
    [16, 5],
    [9, 16],
    [20, 16],
    [16, 10],
    [16, 23],
  ],
  [
    [18, 5],
    [10, 6],
    [10, 13],
    [16, 13],
    [18, 18],
    [15, 22],
    [9, 22],
  ],
  [
    [17, 5],
    [11, 11],
    [9, 18],
    [13, 22],
    [18, 19],
    [16, 14],
    [10, 16],
  ],
  [
    [9, 6],
    [19, 6],
    [14, 14],
    [12, 23],
  ],
  [
    [14, 13],
    [10, 9],
    [14, 5],
    [18, 9],
    [14, 13],
    [9, 18],
    [14, 23],
    [19, 18],
    [14, 13],
  ],
  [
    [18, 10],
    [14, 13],
    [10, 9],
    [14, 5],
    [18, 9],
    [17, 17],
    [14, 23],
  ],
];

export function random(seed) {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
export const normal = (draw) => Math.sqrt(-2 * Math.log(draw() + 1e-12)) * Math.cos(2 * Math.PI * draw());

function glyph(digit, draw, width = 1.5) {
  const slant = (draw() - 0.5) * 0.5;
  const [dx, dy] = [(draw() - 0.5) * 3, (draw() - 0.5) * 2];
  const scale = 0.85 + draw() * 0.25;
  const points = STROKES[digit].map(([x, y]) => [
    14 + (x - 14 + slant * (14 - y) + (draw() - 0.5) * 1.6) * scale + dx,
    14 + (y - 14) * scale + dy,
  ]);
  const thick = width * (0.8 + draw() * 0.6);
  const out = new Float32Array(SIZE * SIZE);
  for (let y = 0; y < SIZE; y += 1) {
    for (let x = 0; x < SIZE; x += 1) {
      let least = 99;
      for (let i = 0; i + 1 < points.length; i += 1) {
        const [[ax, ay], [bx, by]] = [points[i], points[i + 1]];
        const [ux, uy] = [bx - ax, by - ay];
        const part = Math.min(1, Math.max(0, ((x - ax) * ux + (y - ay) * uy) / (ux * ux + uy * uy + 1e-9)));
        least = Math.min(least, Math.hypot(x - ax - part * ux, y - ay - part * uy));
      }
      out[y * SIZE + x] = Math.tanh((thick - least) * 1.6);
    }
  }
  return out;
}

const cache = new Map();
/**
 * The mixture of a sample at time t: means `[k][pixel]`, weights `[k][pixel]`, one standard deviation, and the sample's
 * pixels.
 */
export function mixture(digit, seed, t, k) {
  const key = `${digit} ${seed} ${k}`;
  if (!cache.has(key)) {
    const draw = random(Number(BigInt(seed) % 100003n) * 10 + digit);
    const shapes = Array.from({ length: k }, () => glyph(digit, draw));
    cache.set(key, {
      shapes,
      logits: shapes.map(() => normal(draw)),
      noise: Float32Array.from({ length: SIZE * SIZE }, () => normal(draw)),
    });
    if (cache.size > 400) cache.delete(cache.keys().next().value);
  }
  const { shapes, logits, noise } = cache.get(key);
  const best = logits.indexOf(Math.max(...logits));
  const sharp = 0.6 + 5 * (1 - t) ** 2;
  const means = shapes.map((shape, at) =>
    shape.map((v, p) => v * (0.45 + 0.55 * (1 - t)) + shapes[(at + 1) % k][p] * 0.15 * t - 0.35 * t),
  );
  const weights = shapes.map(() => new Float32Array(SIZE * SIZE));
  for (let p = 0; p < SIZE * SIZE; p += 1) {
    const e = logits.map((l, at) =>
      Math.exp(sharp * (l + 0.5 * Math.abs(means[at][p] - means[best][p]) * (at === best ? 0 : -1))),
    );
    const sum = e.reduce((a, b) => a + b, 0);
    e.forEach((v, at) => (weights[at][p] = v / sum));
  }
  const x0 = new Float32Array(SIZE * SIZE);
  for (let at = 0; at < k; at += 1) for (let p = 0; p < x0.length; p += 1) x0[p] += weights[at][p] * means[at][p];
  const x = x0.map((_, p) => (1 - t) * shapes[best][p] + t * noise[p]);
  return { means, weights, std: 0.06 + 0.3 * t, x0, x, final: shapes[best] };
}

export function entropyAt(weights, p) {
  return weights.reduce((sum, w) => sum - (w[p] > 0 ? w[p] * Math.log(w[p]) : 0), 0);
}

/** A point of a checkerboard for a seed, and its noise. */
export function point(seed) {
  const draw = random(Number(BigInt(seed) % 1000003n));
  const noise = [normal(draw), normal(draw)];
  const column = Math.floor(draw() * 4);
  const row = Math.floor(draw() * 2) * 2 + (column % 2);
  return { noise, end: [column - 2 + draw(), row - 2 + draw()].map((v) => v * 1.6) };
}
