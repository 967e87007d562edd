// The guide as HTML, in a browser: readable for everyone, on a phone, in the dark, without network.
// `bin/guide build` makes it.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { CHROMIUM, CHROMIUM_FLAGS } from "./support.js";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const folder = fileURLToPath(new URL("../../target/guide", import.meta.url));
const pages = (await readdir(folder)).filter((name) => /^(\d\d-.*|index)\.html$/.test(name)).sort();

describe("The guide", () => {
  let browser;
  before(async () => {
    browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
  });
  after(() => browser.close());

  async function open(name, settings) {
    const context = await browser.newContext(settings);
    const page = await context.newPage();
    page.requested = [];
    page.on("request", (request) => page.requested.push(request.url()));
    await page.goto(`file://${folder}/${name}`);
    return page;
  }

  test("has a page for each chapter", () => assert.equal(pages.length, 13));

  for (const name of pages) {
    for (const colorScheme of ["light", "dark"]) {
      test(`axe finds no violation in ${name} in the ${colorScheme} colour scheme`, async () => {
        const page = await open(name, { colorScheme });
        await page.evaluate(axe);
        const { violations, passes } = await page.evaluate(() => axe.run());
        await page.context().close();
        assert.ok(passes.length > 10, "axe checked too few rules");
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).slice(0, 3)}`);
        assert.deepEqual(found, []);
      });
    }

    test(`${name} fits a screen of 320 px, has its pictures, and asks for nothing from elsewhere`, async () => {
      const page = await open(name, { viewport: { width: 320, height: 640 } });
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      const broken = await page.evaluate(() => [...document.images].filter((image) => !image.naturalWidth).map(String));
      const elsewhere = page.requested.filter((url) => !url.startsWith("file:"));
      await page.context().close();
      assert.deepEqual({ width, broken, elsewhere }, { width: 320, broken: [], elsewhere: [] });
    });
  }
});
