// The same request on the command line and over HTTP.
import { SAMPLER, bodyOf } from "./settings.js";

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", "'\\''")}'`);

/** The command of `gmflow` that draws the same samples. */
export function command(settings) {
  const words = ["gmflow sample", "--checkpoint", quoted(settings.model ?? "MODEL")];
  for (const name of settings.classes ?? []) words.push("--class", quoted(name));
  if (settings.n !== undefined) words.push("--num", settings.n);
  if (settings.seed !== undefined) words.push("--seed", settings.seed);
  for (const name of Object.keys(SAMPLER)) {
    const value = settings[name];
    if (value === undefined || value === false) {
      if (value === false && name === "spectral") words.push("--spectral off");
      continue;
    }
    const option = `--${name.replaceAll("_", "-")}`;
    if (name === "unconverted") words.push(option);
    else if (name === "spectral") words.push(option, "on");
    else words.push(option, quoted(String(value)));
  }
  words.push("--grid --out samples.png");
  return words.join(" ");
}

/** The request with curl that draws the same samples. */
export function curl(settings) {
  const body = JSON.stringify(bodyOf(settings));
  return `curl -H 'accept: image/png' -d ${quoted(body)} ${location.origin}/v1/samples -o samples.png`;
}
