// Drives every view of the page as a person would, against the real server.
import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  binary,
  browse,
  changed,
  digest,
  drawn,
  gmflow,
  open,
  pixels,
  pixelsOfFile,
  root,
  scratch,
  serve,
  set,
  start,
} from "./lib.mjs";

const axe = readFileSync(new URL("./node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const VIEWS = {
  sample: "#/sample?model=mnist&n=4&seed=0&steps=2",
  compare: "#/compare?model=mnist&n=2&seed=0&steps=2&b.model=mnist&b.steps=3",
  inside: "#/inside?model=mnist&class=7&seed=3&steps=3&pixel=14,12",
  "inside, points": "#/inside?model=points&seed=0&steps=3&n=200&point=3",
  runs: "#/runs",
};

describe("the page", { skip: existsSync(binary) ? false : `there is no ${binary}` }, () => {
  const folder = scratch();
  const runs = join(folder, "runs");
  let server;
  let browser;
  let training;
  let page;

  before(async () => {
    const small = set("train.batch_size=64", "log.every=5");
    await gmflow("train", "configs/demo-k64.toml", "--out", join(runs, "points"), ...set("train.steps=60"), ...small);
    await gmflow(
      "train",
      "configs/demo-k64.toml",
      "--out",
      join(runs, "faster"),
      ...set("train.steps=40", "train.lr=0.003"),
      ...small,
    );
    server = await serve(`mnist=${join(root, "models/mnist")}`, `points=${join(runs, "points")}`, "--runs", runs);
    browser = await browse();
  });

  after(async () => {
    await browser?.close();
    await training?.stop("SIGKILL");
    await server?.stop();
  });

  const visit = async (hash, how) => {
    page = await open(browser, server.url, hash, how);
    return page;
  };

  /** Nothing came from elsewhere and nothing went wrong. */
  const clean = async (allowed = []) => {
    assert.deepEqual(page.foreign, []);
    assert.deepEqual(
      page.complaints.filter((text) => !allowed.some((part) => text.includes(part))),
      [],
    );
    await page.close();
  };

  test("samples are those of the command line, pixel by pixel", async () => {
    await visit("#/sample?model=mnist&class=7&n=2&seed=5&steps=4");
    await drawn(page);
    const out = join(folder, "sevens");
    await gmflow(
      "sample",
      "--checkpoint",
      "models/mnist",
      "--class",
      "7",
      "--num",
      "2",
      "--seed",
      "5",
      "--steps",
      "4",
      "--out",
      out,
    );
    const files = readdirSync(out)
      .filter((name) => name.endsWith(".png"))
      .sort();
    assert.equal(files.length, 2);
    for (const [index, name] of files.entries()) {
      assert.deepEqual(await pixels(page, ".tile canvas", index), await pixelsOfFile(browser, join(out, name)), name);
    }
    assert.match(await page.textContent(".tile .caption"), /7 · seed 5/);
    await clean();
  });

  test("what is drawn can be scrubbed, and shared by its address", async () => {
    await visit("#/sample?model=mnist&class=3&n=1&seed=1&steps=4");
    await drawn(page);
    const last = await digest(page, ".tile canvas");
    await page.keyboard.press(",");
    await page.keyboard.press(",");
    await page.waitForFunction(() => document.querySelector(".scrub output").textContent.includes("step 2 of 4"));
    await changed(page, ".tile canvas", last);
    await page.fill('.field[data-name="seed"] input', "18446744073709551615");
    await page.press('.field[data-name="seed"] input', "Enter");
    await page.waitForFunction(() =>
      document.querySelector(".tile .caption").textContent.includes("18446744073709551615"),
    );
    await drawn(page);
    assert.match(page.url(), /seed=18446744073709551615/);
    const here = await pixels(page, ".tile canvas");
    const address = page.url().split("/").slice(3).join("/");
    await clean();
    await visit(address);
    await drawn(page);
    assert.deepEqual(await pixels(page, ".tile canvas"), here);
    await clean();
  });

  test("a sample is drawn and looked into with the keyboard alone", async () => {
    await visit("#/sample?model=mnist&n=3&seed=2&steps=2");
    await drawn(page);
    await page.focus('.field[data-name="class"] input[value="4"]');
    await page.keyboard.press("Space");
    await page.waitForFunction(() => document.querySelector(".tile .caption").textContent.startsWith("4 "));
    await drawn(page);
    await page.focus('.tile[tabindex="0"]');
    await page.keyboard.press("ArrowRight");
    await page.waitForSelector('.tile[data-index="1"][aria-selected="true"]');
    await page.keyboard.press("Enter");
    await page.waitForSelector(".mixture");
    assert.match(page.url(), /#\/inside\?.*class=4.*seed=3/);
    await drawn(page);
    await clean();
  });

  test("two sides that are the same show the same; two that differ do not, and are scrubbed together", async () => {
    await visit("#/compare?model=mnist&class=2&n=2&seed=4&steps=4&b.model=mnist&b.steps=4");
    await drawn(page);
    await page.waitForFunction(() => document.querySelector(".gap")?.textContent === "the same");
    await page.click("text=2 steps against 8");
    await page.waitForFunction(() => document.querySelector(".gap")?.textContent.startsWith("differ"));
    await drawn(page);
    assert.match(await page.textContent(".scrub output"), /A 2\/2 · B 8\/8/);
    await page.focus(".scrub input");
    await page.keyboard.press("Home");
    assert.match(await page.textContent(".scrub output"), /t = 1 · A 0\/2 · B 0\/8/);
    await page.waitForFunction(() => document.querySelector(".gap")?.textContent === "the same");
    await page.getByRole("radio", { name: "Difference" }).check();
    assert.ok(await page.isVisible(".pair canvas.d"));
    await clean();
  });

  test("a pixel's weights sum to 1, and its mean is what the prediction shows", async () => {
    await visit(VIEWS.inside);
    await drawn(page);
    await page.waitForSelector('[data-fact="picture shows"]');
    const fact = async (name) => Number(await page.textContent(`[data-fact="${name}"] dd`));
    assert.ok(Math.abs((await fact("weights sum to")) - 1) < 1e-4);
    const check = async (place) => {
      await page.waitForFunction(
        (text) =>
          document.querySelector(".mixture h2").textContent === `Pixel (${text})` &&
          document.querySelector('[data-fact="picture shows"]'),
        place,
      );
      assert.ok(
        Math.abs(Math.max(-1, Math.min(1, await fact("mean"))) - (await fact("picture shows"))) < 0.0051,
        place,
      );
    };
    await check("14, 12");
    await page.focus(".large");
    await page.keyboard.press("ArrowRight");
    await check("15, 12");
    const box = await page.locator(".large canvas").boundingBox();
    await page.mouse.click(box.x + (10.5 / 28) * box.width, box.y + (20.5 / 28) * box.height);
    await check("10, 20");
    const bars = await page.locator(".mixture tbody tr").count();
    assert.equal(bars, 8);
    await page.getByRole("radio", { name: "Entropy" }).check();
    await drawn(page);
    const colours = await pixels(page, ".large canvas");
    assert.ok(new Set(colours).size > 8, "a map of entropy");
    await clean();
  });

  test("points move through the density, and one of them is chosen", async () => {
    await visit("#/inside?model=points&seed=0&steps=3&n=200");
    await drawn(page);
    await page.waitForSelector("text=Click a sample for its own mixture");
    const before = await digest(page, ".plane canvas");
    await page.keyboard.press(".");
    await changed(page, ".plane canvas", before);
    await page.click(".plane canvas");
    await page.waitForFunction(() => document.querySelector(".mixture h2")?.textContent.startsWith("Point "));
    await page.waitForSelector('[data-fact="weights sum to"]');
    assert.ok(Math.abs(Number(await page.textContent('[data-fact="weights sum to"] dd')) - 1) < 1e-4);
    await clean();
  });

  test("a run is followed while it trains, and its checkpoint sampled", async () => {
    training = start(
      "train",
      "configs/demo-k64.toml",
      "--out",
      join(runs, "live"),
      ...set("train.steps=100000", "train.batch_size=64", "log.every=5", "checkpoint.every=20"),
    );
    while (!existsSync(join(runs, "live/log.jsonl"))) await new Promise((done) => setTimeout(done, 100));
    await visit("#/runs?run=live");
    await page.waitForSelector(".chart .line");
    const step = async () => Number((await page.textContent(".facts dd")).split(" of ")[0].replaceAll("\u202f", ""));
    const first = await step();
    await page.waitForFunction(
      (from) =>
        Number(document.querySelector(".facts dd").textContent.split(" of ")[0].replaceAll("\u202f", "")) > from + 10,
      first,
    );
    await page.waitForSelector("text=Sample it now", { timeout: 20_000 });
    await training.stop("SIGINT");
    await page.waitForFunction(() => document.querySelector(".sheet .state").textContent === "stopped", null, {
      timeout: 20_000,
    });
    await page.click("text=Sample it now");
    await page.waitForSelector(".plane");
    await drawn(page);
    assert.match(page.url(), /model=run:live/);
    await clean();
  });

  test("several runs stand together with the difference of their settings, and a sweep", async () => {
    await visit("#/runs?run=points&run=faster");
    await page.waitForSelector(".configs td.differs");
    assert.match(await page.textContent(".configs"), /train\.lr/);
    await page.waitForSelector('section[aria-label="Loss against a setting"] .dot');
    await page.waitForSelector(".chart .line:not(.faint)");
    await clean();
  });

  test("a draw is cancelled", async () => {
    await visit("#/sample?model=mnist&n=64&seed=0&steps=400");
    await page.waitForSelector("button.cancel:not([hidden])");
    await page.waitForFunction(() => document.querySelector("progress").value > 2, null, { timeout: 30_000 });
    await page.keyboard.press("Escape");
    await page.waitForFunction(() => document.querySelector(".stage").textContent.includes("Cancelled"));
    const queue = await (await fetch(`${server.url}/v1/queue`)).json();
    assert.equal(queue.running + queue.queued, 0);
    await clean();
  });

  test("what is wrong is said at its control", async () => {
    await visit("#/sample?model=mnist&n=1&steps=100000");
    await page.waitForSelector('.field[data-name="steps"] .wrong:not([hidden])');
    assert.match(await page.textContent(".note.bad"), /steps/);
    await page.fill('.field[data-name="steps"] input[type=number]', "2");
    await page.press('.field[data-name="steps"] input[type=number]', "Enter");
    await drawn(page);
    assert.ok(await page.isHidden(".note.bad"));
    await clean(["413", "422"]);
  });

  test("a server with a key is given it once", async () => {
    const key = join(folder, "key");
    writeFileSync(key, "a-key+of/characters=\n");
    const locked = await serve(`mnist=${join(root, "models/mnist")}`, "--key-file", key);
    try {
      page = await open(browser, locked.url, "#/sample?model=mnist&n=1&seed=0&steps=2");
      await page.fill("#key", "not-the-key");
      await page.click("text=Use this key");
      await page.waitForSelector("text=The server does not take this key");
      await page.fill("#key", "a-key+of/characters=");
      await page.click("text=Use this key");
      await page.waitForSelector(".tile");
      await drawn(page);
      assert.ok(new Set(await pixels(page, ".tile canvas")).size > 8, "a digit");
      await clean(["401"]);
    } finally {
      await locked.stop();
    }
  });

  for (const [name, hash] of Object.entries(VIEWS)) {
    for (const [width, theme] of [
      [360, "light"],
      [1280, "dark"],
    ]) {
      test(`${name}: axe finds nothing, and it fits, at ${width} pixels, ${theme}`, async () => {
        await visit(hash, { width, theme });
        if (name === "runs") await page.waitForSelector(".chart .line");
        else await drawn(page);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
        const found = violations.map(
          ({ id, nodes }) =>
            `${id}: ${nodes
              .map((node) => node.html)
              .slice(0, 3)
              .join(" ")}`,
        );
        assert.deepEqual(found, []);
        assert.equal(
          await page.evaluate(() =>
            Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth),
          ),
          0,
        );
        await clean();
      });
    }
  }

  test("the first digit comes soon after the first paint (a figure, not a bound)", async (t) => {
    page = await browser.newPage();
    await page.addInitScript(() =>
      document.addEventListener("shown", () => (window.firstDigit ??= performance.now()), true),
    );
    await page.goto(`${server.url}/#/sample?model=mnist&n=1&seed=0&steps=4`);
    await page.waitForFunction(() => window.firstDigit);
    const [paint, digit] = await page.evaluate(() => [
      performance.getEntriesByName("first-contentful-paint")[0]?.startTime,
      window.firstDigit,
    ]);
    t.diagnostic(`first paint after ${Math.round(paint)} ms, first digit after ${Math.round(digit)} ms`);
    await page.close();
  });
});
