// Colours of data.

/** A map of 256 colours through the given stops. */
function ramp(stops) {
  const parts = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const map = new Uint8ClampedArray(256 * 3);
  for (let value = 0; value < 256; value += 1) {
    const place = (value / 255) * (parts.length - 1);
    const low = Math.min(parts.length - 2, Math.floor(place));
    for (let channel = 0; channel < 3; channel += 1) {
      map[value * 3 + channel] = parts[low][channel] + (place - low) * (parts[low + 1][channel] - parts[low][channel]);
    }
  }
  return map;
}

/** From nothing (dark) to much (bright), even in lightness. */
export const HEAT = ramp([
  "#0b0a1f",
  "#2a1458",
  "#5d1a73",
  "#902a6d",
  "#c1425a",
  "#e7693f",
  "#f9a03a",
  "#fbd56b",
  "#fcfbc4",
]);

/** From paper to ink, for densities. */
export const DUSK = ramp(["#101118", "#1f2148", "#343a86", "#4d63b6", "#6f92cf", "#9bbedd", "#cfe3ea", "#ffffff"]);
export const DAWN = ramp(["#ffffff", "#e6e8f4", "#c0c8e8", "#929fd6", "#6874c0", "#474ca3", "#33307d", "#211b54"]);

/** The colour of a map at a place from 0 to 1, as CSS writes it. */
export function at(map, place) {
  const value = Math.round(Math.min(1, Math.max(0, place)) * 255) * 3;
  return `rgb(${map[value]} ${map[value + 1]} ${map[value + 2]})`;
}

const CHOSEN = ["#4e79c5", "#e08a2e", "#2f9c86", "#c9528f", "#8a63c4", "#9a9a2b", "#d2564a", "#3d9dbd"];

/** The colour of component or series `index`: eight that can be told apart, then others of even lightness. */
export function series(index) {
  return CHOSEN[index] ?? `oklch(${index % 2 ? 0.62 : 0.72} 0.13 ${(index * 137.5) % 360})`;
}

/** Whether the page is dark now. */
export function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
