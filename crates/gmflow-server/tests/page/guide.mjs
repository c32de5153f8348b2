// Makes the pictures of the guide: node guide.mjs. Needs the program; trains three small runs for the picture of runs.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { browse, drawn, gmflow, open, root, scratch, serve, set } from "./lib.mjs";

const folder = join(root, "book/src/images");
const runs = scratch();
const SHORT = set(
  "train.steps=600",
  "train.batch_size=256",
  "log.every=10",
  "sample.every=100",
  "sample.num=4000",
  'sample.sampler={steps=4,solver={kind="gm-ode"}}',
);

mkdirSync(folder, { recursive: true });
for (const k of [4, 16, 64]) {
  const out = join(runs, `checkerboard-k${k}`);
  await gmflow("train", "configs/demo-k64.toml", "--out", out, ...SHORT, ...set(`network.num_gaussians=${k}`));
}
const server = await serve(`mnist=${join(root, "models/mnist")}`, "--runs", runs);
const browser = await browse();

let page = await open(browser, server.url, "#/sample?model=mnist&n=10&seed=0&steps=6", { width: 1240, height: 735 });
await drawn(page);
await page.click('.tile[data-index="3"]');
await page.screenshot({ path: join(folder, "page-sample.png") });
await page.close();

page = await open(browser, server.url, "#/inside?model=mnist&class=3&seed=3&steps=6&step=1&pixel=16,12", {
  width: 1240,
  height: 932,
});
await drawn(page);
await page.waitForSelector('[data-fact="picture shows"]');
await page.screenshot({ path: join(folder, "page-inside.png") });
await page.close();

page = await open(browser, server.url, "#/runs?run=checkerboard-k4&run=checkerboard-k16&run=checkerboard-k64", {
  width: 1240,
  height: 940,
});
await page.waitForSelector(".chart .line");
await page.waitForTimeout(500);
await page.screenshot({ path: join(folder, "page-runs.png") });
await browser.close();
await server.stop();
