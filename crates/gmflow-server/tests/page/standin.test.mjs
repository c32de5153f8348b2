// What a real server seldom shows: alerts of runs, a full queue, a thousand classes, a server that goes away.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { browse, drawn, open } from "./lib.mjs";

describe("the page before a stand-in server", () => {
  let program;
  let url;
  let browser;

  before(async () => {
    program = spawn(process.execPath, [fileURLToPath(new URL("mock/server.mjs", import.meta.url)), "0", "20"]);
    let complaint = "";
    program.stderr.on("data", (data) => (complaint += data));
    url = await new Promise((done, fail) => {
      program.stdout.once("data", (data) => done(String(data).trim()));
      program.once("close", () => fail(new Error(`the stand-in server did not start:\n${complaint}`)));
    });
    browser = await browse();
  });

  after(async () => {
    await browser?.close();
    program?.kill();
  });

  test("alerts stand in the list and above the curves", async () => {
    const page = await open(browser, url, "#/runs?run=hot");
    await page.waitForSelector(".note.bad:not([hidden])");
    assert.match(await page.textContent(".note.bad:not([hidden])"), /hot: not finite at step 2.550/);
    assert.equal(await page.locator('.runs .state[data-state="alert"]').textContent(), "not finite");
    await page.close();
  });

  test("the health of a mixture is measured by drawing from the checkpoint", async () => {
    const page = await open(browser, url, "#/runs?run=digits");
    await page.click("text=Measure now");
    await page.waitForSelector('section[aria-label="Health of the mixture"] .line');
    assert.match(await page.textContent('section[aria-label="Health of the mixture"]'), /Effective K by time/);
    await page.close();
  });

  test("charts of a sweep have a line for each solver", async () => {
    const page = await open(browser, url, "#/runs");
    const sweeps = page.locator('section[aria-label="Sweeps"]');
    await sweeps.locator(".line").first().waitFor();
    assert.equal(await sweeps.locator(".chart").first().locator(".line").count(), 3);
    assert.match(await sweeps.textContent(), /60 cells\. 1 cell failed: out of memory\. Lower is better/);
    await sweeps.getByLabel("Figure").selectOption("precision");
    assert.match(await sweeps.textContent(), /Higher is better/);
    assert.match(page.url(), /figure=precision/);
    await page.close();
  });

  test("a full queue says when to come again", async () => {
    const page = await open(browser, url, "#/sample?seed=429");
    await page.waitForSelector(".note.bad");
    assert.match(await page.textContent(".note.bad"), /enough to do\. It takes new work in about 3 s/);
    await page.close();
  });

  test("one class among a thousand is found by its name", async () => {
    const page = await open(browser, url, "#/sample?model=imagenet-256&n=2&steps=1");
    await drawn(page);
    await page.getByLabel("Search the classes").fill("goldf");
    await page.getByRole("checkbox", { name: "goldfish" }).check();
    await page.waitForFunction(() => document.querySelector(".tile .caption").textContent.startsWith("goldfish"));
    assert.match(page.url(), /class=goldfish/);
    await page.close();
  });

  test("a server that goes away is said, and a draw can be tried again", async () => {
    const page = await open(browser, url, "#/sample?n=1&steps=1");
    await drawn(page);
    await page.context().setOffline(true);
    await page.keyboard.press("d");
    await page.waitForSelector(".note.bad");
    assert.match(await page.textContent(".note.bad"), /does not answer/);
    await page.context().setOffline(false);
    await page.click("text=Try again");
    await page.waitForFunction(() => document.querySelector(".note.bad").hidden);
    await drawn(page);
    await page.close();
  });
});
