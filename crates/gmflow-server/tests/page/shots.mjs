// Takes pictures of the page, to be looked at: node shots.mjs URL FOLDER [VIEW...]
import { mkdirSync } from "node:fs";
import { chromium } from "playwright-core";

const [url, folder, ...only] = process.argv.slice(2);
const VIEWS = {
  sample: "#/sample",
  compare: "#/compare",
  inside: "#/inside?class=7&seed=3",
  runs: "#/runs",
};
const SIZES = (process.env.SIZES ?? "360,1280,2560").split(",").map(Number);
const THEMES = (process.env.THEMES ?? "light,dark").split(",");

mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
for (const [name, hash] of Object.entries(VIEWS)
  .filter(([name]) => !only.length || only.includes(name))
  .concat(
    only
      .filter((a) => a.includes("#"))
      .map((a) => a.split("=#"))
      .map(([n, a]) => [n, `#${a}`]),
  )) {
  for (const width of SIZES) {
    for (const theme of THEMES) {
      const page = await browser.newPage({
        viewport: { width, height: Math.round(width < 500 ? 760 : width * 0.62) },
        colorScheme: theme,
      });
      page.on("console", (line) => ["error", "warning"].includes(line.type()) && console.log(name, line.text()));
      page.on("pageerror", (error) => console.log(name, error.message, error.stack));
      await page.goto(`${url}/${hash}`);
      await page.waitForTimeout(Number(process.env.WAIT ?? 2500));
      await page.screenshot({ path: `${folder}/${name}-${width}-${theme}.png`, fullPage: Boolean(process.env.FULL) });
      const over = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      if (over > 0) console.log(`${name} at ${width}: ${over} px too wide`);
      await page.close();
    }
  }
}
await browser.close();
