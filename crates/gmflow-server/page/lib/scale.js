// Scales and ticks of charts.
import { number, short } from "./format.js";

/** From values in [low, high] to places from `from` to `to`; `log` for a logarithmic axis. */
export function scale([low, high], [from, to], log = false) {
  const f = log ? Math.log10 : (value) => value;
  const [a, b] = [f(low), f(high)];
  const at = (value) => from + ((f(value) - a) / (b - a || 1)) * (to - from);
  at.back = (place) => {
    const value = a + ((place - from) / (to - from || 1)) * (b - a);
    return log ? 10 ** value : value;
  };
  return at;
}

/** Round values between `low` and `high`, about `n` of them. */
export function ticks(low, high, n, log = false) {
  if (log) {
    const out = [];
    const factors = high / low > 300 ? [1] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
      out.push(
        ...factors
          .map((factor) => factor * 10 ** power)
          .filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)),
      );
    }
    return out.length >= 2 ? out : ticks(low, high, n);
  }
  const rough = (high - low) / Math.max(1, n);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const out = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step)
    out.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return out;
}

/** How ticks are written. */
export const tickText = (value) => (Math.abs(value) >= 1000 ? short(value).replace(" ", "") : number(value, 3));

/** The smallest and largest of values, with a little room; `null` where there are none. */
export function extent(values, log = false) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value) || (log && value <= 0)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return null;
  if (log) return low === high ? [low / 2, high * 2] : [low, high];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

/** The index of the value nearest to `wanted` in a rising list. */
export function nearest(values, wanted) {
  let low = 0;
  let high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle;
    else high = middle;
  }
  return Math.abs(values[low] - wanted) <= Math.abs((values[high] ?? Infinity) - wanted) ? low : high;
}
