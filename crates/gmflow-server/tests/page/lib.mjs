// What the tests of the page share: a server, a browser, pixels.
import { execFile, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
export const root = resolve(here, "../../../..");
export const page_folder = join(root, "crates/gmflow-server/page");
export const binary =
  process.env.GMFLOW_BIN ?? join(process.env.CARGO_TARGET_DIR ?? join(root, "target"), "release/gmflow");

/** Runs the program and gives what it printed. */
export async function gmflow(...args) {
  const { stdout } = await promisify(execFile)(binary, args, { cwd: root, maxBuffer: 1 << 24 });
  return stdout;
}

/** Settings as options of `gmflow train`. */
export const set = (...settings) => settings.flatMap((setting) => ["--set", setting]);

/** A folder that is removed at the end. */
export function scratch() {
  const folder = mkdtempSync(join(tmpdir(), "gmflow-page-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts the program in the background; `stop()` ends it and waits. */
export function start(...args) {
  const child = spawn(binary, args, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const program = { child, output: "" };
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (program.output += data));
  const ended = new Promise((done) => child.on("exit", done));
  program.stop = async (signal = "SIGTERM") => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    await ended;
  };
  process.on("exit", () => child.kill("SIGKILL"));
  return program;
}

/** Starts a server on a free port and waits until it is ready; `url` is its address. */
export async function serve(...args) {
  const program = start("serve", ...args, "--bind", "127.0.0.1:0", "--page", page_folder);
  const until = Date.now() + 60_000;
  for (;;) {
    const address = program.output.match(/http:\/\/127\.0\.0\.1:\d+/)?.[0];
    if (address && (await fetch(`${address}/readyz`).catch(() => null))?.ok) return { ...program, url: address };
    if (program.child.exitCode !== null || Date.now() > until)
      throw new Error(`the server did not start:\n${program.output}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

/** Debian's Chromium. */
export function browse() {
  const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser"].find(
    (path) => path && existsSync(path),
  );
  return chromium.launch({ executablePath, args: ["--no-sandbox"] });
}

/**
 * Opens an address of the page. `page.foreign` lists requests to other places, `page.complaints` what the browser
 * reports: errors of scripts, and of the content security policy.
 */
export async function open(browser, url, hash, { width = 1280, height = 800, theme = "light" } = {}) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: theme, reducedMotion: "reduce" });
  page.foreign = [];
  page.complaints = [];
  page.on(
    "request",
    (request) => new URL(request.url()).origin !== new URL(url).origin && page.foreign.push(request.url()),
  );
  page.on("pageerror", (error) => page.complaints.push(error.message));
  page.on("console", (line) => line.type() === "error" && page.complaints.push(line.text()));
  await page.goto(`${url}/${hash}`);
  return page;
}

/** Waits until a draw has ended, and all pictures that it brought are shown. */
export async function drawn(page) {
  await page.waitForSelector("button.draw");
  await page.waitForFunction(
    () =>
      document.querySelector("button.cancel")?.hidden === true &&
      !document.querySelector("canvas[data-busy]") &&
      [...document.querySelectorAll(".stage canvas")].some((canvas) => canvas.offsetWidth > 0),
    null,
    { timeout: 30_000 },
  );
}

/** A number that stands for the pixels of a canvas, which may be too many to be sent. */
export function digest(page, selector) {
  return page.evaluate((what) => {
    const canvas = document.querySelector(what);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.reduce((sum, value) => (Math.imul(sum, 31) + value) | 0, canvas.width);
  }, selector);
}

/** Waits until the pixels of a canvas are others than those of a digest. */
export async function changed(page, selector, before) {
  for (const until = Date.now() + 20_000; Date.now() < until; await page.waitForTimeout(50)) {
    if ((await digest(page, selector)) !== before) return;
  }
  throw new Error(`${selector} shows the same as before`);
}

/** The pixels of a canvas, as red, green, blue and alpha. */
export function pixels(page, selector, index = 0) {
  return page.evaluate(
    ([what, at]) => {
      const canvas = document.querySelectorAll(what)[at];
      return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
    },
    [selector, index],
  );
}

/** The pixels of a PNG file, as the browser reads them. */
export async function pixelsOfFile(browser, path) {
  const page = await browser.newPage();
  const data = readFileSync(path).toString("base64");
  const values = await page.evaluate(async (text) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${text}`)).blob());
    const canvas = new OffscreenCanvas(image.width, image.height);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return Array.from(context.getImageData(0, 0, image.width, image.height).data);
  }, data);
  await page.close();
  return values;
}
