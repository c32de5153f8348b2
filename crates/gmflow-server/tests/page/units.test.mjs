// Parts of the page that need no browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { byGuidance, bySteps, figureNames, readCells, stepsOf } from "../../page/lib/cells.js";
import { command } from "../../page/lib/commands.js";
import { number, span, whole } from "../../page/lib/format.js";
import { extent, nearest, scale, ticks } from "../../page/lib/scale.js";
import {
  addTo,
  bodyOf,
  complete,
  effective,
  isSeed,
  planesFor,
  seedAt,
  settingsFrom,
  summary,
} from "../../page/lib/settings.js";

const model = {
  id: "mnist",
  kind: "image",
  shape: [1, 28, 28],
  components: 8,
  sampler: { solver: "gm-ode", order: 2, steps: 8, substeps: 16, guidance: 0.2, orthogonal: 1 },
};

describe("settings", () => {
  test("an address gives the settings that it was made of", () => {
    const settings = {
      model: "mnist",
      classes: ["7", "tench, Tinca tinca"],
      n: 4,
      seed: "18446744073709551615",
      solver: "gm-sde",
      order: 1,
      steps: 6,
      cfg: 1.5,
      guidance_interval: [0.2, 0.8],
      spectral: false,
      reweight_by: "pixel",
    };
    const params = addTo(new URLSearchParams(), settings);
    assert.deepEqual(settingsFrom(new URLSearchParams(String(params))), settings);
    const both = addTo(addTo(new URLSearchParams(), settings), { model: "k1", steps: 2 }, "b.");
    assert.deepEqual(settingsFrom(both), settings);
    assert.deepEqual(settingsFrom(both, "b."), { model: "k1", steps: 2 });
  });

  test("a request has what was chosen and nothing else", () => {
    assert.deepEqual(bodyOf({ model: "mnist", classes: [], n: 1, seed: "7" }), { model: "mnist", n: 1, seed: "7" });
    assert.deepEqual(bodyOf({ classes: ["7"], guidance: 0 }), { class: "7", guidance: 0 });
    assert.deepEqual(bodyOf({ classes: ["7", "8"] }), { classes: ["7", "8"] });
  });

  test("an orthogonal part comes with the guidance that it belongs to", () => {
    assert.equal(complete({ orthogonal: 0.5 }, model).guidance, 0.2);
    assert.equal(complete({ orthogonal: 0.5, cfg: 2 }, model).guidance, undefined);
    assert.equal(complete({ orthogonal: 0.5 }, { sampler: { cfg: 1.5 } }).cfg, 1.5);
    assert.deepEqual(complete({ steps: 2 }, model), { steps: 2 });
  });

  test("what is not chosen is the model's own, but not what belongs to another solver or guidance", () => {
    assert.equal(effective({}, model, "steps"), 8);
    assert.equal(effective({ steps: 3 }, model, "steps"), 3);
    assert.equal(effective({ cfg: 2 }, model, "guidance"), undefined);
    assert.equal(effective({ solver: "euler" }, model, "order"), undefined);
    assert.equal(effective({ solver: "gm-sde" }, model, "substeps"), undefined);
    assert.equal(summary({ solver: "gm-ode", order: 2, steps: 1, guidance: 0 }), "GM-ODE 2, 1 step, no guidance");
  });

  test("seeds are whole numbers below 2^64, and count up around it", () => {
    for (const seed of ["0", "007", "18446744073709551615"]) assert.ok(isSeed(seed), seed);
    for (const seed of ["", "-1", "1.5", "1e3", " 1", "18446744073709551616", "999999999999999999999"])
      assert.ok(!isSeed(seed), seed);
    assert.equal(seedAt("9007199254740993", 2), "9007199254740995");
    assert.equal(seedAt("18446744073709551615", 1), "0");
  });

  test("planes are kept as long as they fit", () => {
    assert.deepEqual(planesFor({ n: 1, steps: 8 }, model, ["mixture", "x0", "x"]), ["mixture", "x0", "x"]);
    assert.deepEqual(planesFor({ n: 1024, steps: 32 }, model, ["x0", "x"]), []);
    assert.deepEqual(planesFor({ n: 300, steps: 32 }, model, ["x0", "x"]), ["x0"]);
  });

  test("commands are quoted", () => {
    assert.equal(
      command({ model: "mnist", classes: ["7"], n: 2, seed: "5", steps: 4, spectral: false }),
      "gmflow sample --checkpoint mnist --class 7 --num 2 --seed 5 --steps 4 --spectral off --grid --out samples.png",
    );
    assert.match(command({ classes: ["it's; rm"] }), /--class 'it'\\''s; rm'/);
  });
});

describe("charts", () => {
  test("ticks are round and lie inside", () => {
    assert.deepEqual(
      ticks(0, 1, 5).map((value) => value.toFixed(6)),
      ["0.000000", "0.200000", "0.400000", "0.600000", "0.800000", "1.000000"],
    );
    assert.deepEqual(
      ticks(1e-4, 1e-1, 4, true).map((v) => Math.round(Math.log10(v))),
      [-4, -3, -2, -1],
    );
    for (const [low, high] of [
      [-3.3, 7.9],
      [1e-6, 2e-6],
      [5, 5],
    ])
      for (const tick of ticks(low, high, 4)) assert.ok(tick >= low - 1e-9 && tick <= high + 1e-9);
  });

  test("scales go there and back", () => {
    for (const log of [false, true]) {
      const to = scale([0.1, 10], [20, 220], log);
      assert.ok(Math.abs(to(0.1) - 20) < 1e-9 && Math.abs(to(10) - 220) < 1e-9);
      assert.ok(Math.abs(to.back(to(2.5)) - 2.5) < 1e-9);
    }
  });

  test("what is no number has no place", () => {
    assert.equal(extent([null, NaN, undefined]), null);
    assert.deepEqual(extent([-1, 0, 2, 8], true), [2, 8]);
    assert.equal(nearest([0, 10, 20, 30], 19), 2);
    assert.equal(nearest([4], 100), 0);
  });

  test("numbers are short", () => {
    assert.deepEqual(
      [0, 0.2, 1234.5, 1e-7, -2.0671, 1.02e8].map((value) => number(value)),
      ["0", "0.2", "1235", "1.00e-7", "-2.067", "1.02e8"],
    );
    assert.equal(number(null), "–");
    assert.equal(whole(16000), "16\u202f000");
    assert.deepEqual([0.25, 5.4, 61, 5400, 200000].map(span), ["250 ms", "5.4 s", "1 min", "1 h 30 min", "2 days"]);
  });
});

describe("sweeps", () => {
  const cell = (label, steps, guidance, distance, precision) => ({
    model: "m",
    label,
    row: {
      sampler: { steps, guidance },
      metrics: { frechet_distance: distance, precision, kernel: { mean: 1, std: null } },
    },
  });
  const cells = [
    cell("a", 4, 0, 3, 0.5),
    cell("a", 4, 0.2, 2, 0.4),
    cell("a", 2, 0.2, 9, 0.6),
    { model: "m", label: "b", row: { sampler: { steps: 4, cfg: 1.5 }, metrics: { precision: 0.9 } } },
    { model: "m", label: "b", error: "no memory" },
  ];

  test("a figure by steps is the best over the guidance, whatever better means", () => {
    const { points, errors } = readCells(cells);
    assert.deepEqual([...errors], [["no memory", 1]]);
    assert.deepEqual(figureNames(points), ["frechet_distance", "precision", "kernel.mean"]);
    assert.deepEqual(bySteps(points, "frechet_distance"), [
      {
        curve: "m, a",
        points: [
          [2, 9],
          [4, 2],
        ],
      },
    ]);
    assert.deepEqual(bySteps(points, "precision")[0].points, [
      [2, 0.6],
      [4, 0.5],
    ]);
  });

  test("a figure by guidance has a curve where there are several", () => {
    const { points } = readCells(cells);
    assert.deepEqual(stepsOf(points), [2, 4]);
    const expected = [
      {
        curve: "m, a",
        points: [
          [0, 3],
          [0.2, 2],
        ],
      },
    ];
    assert.deepEqual(byGuidance(points, "frechet_distance", 4), expected);
    assert.deepEqual(byGuidance(points, "frechet_distance", 2), []);
  });
});

test("what the first view needs is asked for at once", () => {
  const page = new URL("../../page/", import.meta.url);
  const needed = new Set();
  const follow = (url) => {
    if (needed.has(url.href)) return;
    needed.add(url.href);
    for (const [, path] of readFileSync(url, "utf8").matchAll(/^(?:import|export)[^"]*? from "(\.[^"]+)"/gm))
      follow(new URL(path, url));
  };
  follow(new URL("main.js", page));
  follow(new URL("views/sample.js", page));
  const html = readFileSync(new URL("index.html", page), "utf8");
  const listed = [...html.matchAll(/(?:modulepreload" href|module" src)="\/page\/([^"]+)"/g)].map(
    ([, path]) => new URL(path, page).href,
  );
  assert.deepEqual(listed.sort(), [...needed].sort());
});
