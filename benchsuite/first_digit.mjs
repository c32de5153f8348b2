// How long the page of a server takes from its first paint to the first digit, in milliseconds: node first_digit.mjs URL TIMES
// Every time in a browser window that has nothing in its cache.
import { browse } from "../crates/gmflow-server/tests/page/lib.mjs";

const [url, times] = process.argv.slice(2);
const browser = await browse();
const waits = [];
for (let time = 0; time < Number(times); time++) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  await page.addInitScript(() => {
    // A digit has dark and light pixels.
    const shows = (canvas) => {
      if (!canvas.offsetWidth || !canvas.width) return false;
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const greys = data.filter((_, index) => index % 4 === 0 && data[index + 3] > 0);
      return greys.length > 0 && Math.max(...greys.slice(0, 784)) - Math.min(...greys.slice(0, 784)) > 128;
    };
    const look = () => {
      if ([...document.querySelectorAll(".stage canvas")].some(shows)) window.firstDigit = performance.now();
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  });
  await page.goto(`${url}/#/sample?model=mnist&class=7&n=1&steps=4`);
  await page.waitForFunction(() => window.firstDigit, null, { timeout: 30_000 });
  waits.push(
    await page.evaluate(() => {
      const paint = performance.getEntriesByName("first-contentful-paint")[0] ?? performance.getEntriesByType("paint")[0];
      return { paint: paint.startTime, digit: window.firstDigit };
    }),
  );
  await context.close();
}
await browser.close();
console.log(JSON.stringify(waits));
