// Tests of the app in headless Chromium, for behaviour that only a browser shows.
// TASKLIST is the path of the program; default: the debug build.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";

import { chromium } from "playwright-core";

import { add, CHROMIUM, CHROMIUM_FLAGS, flashes, names, press, startApp } from "./support.js";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const ODD_NAMES = [
  "<script>document.title = 'broken'</script> & \"quotes\"",
  "شراء الحليب (2 لتر)",
  "👩‍👩‍👧‍👦 family day",
  "x".repeat(500),
];

let browser;
let app;

// Opens a page and records its console messages and requests.
async function visit({ context: options = {}, path = "/" } = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.consoleMessages = [];
  page.requests = [];
  page.on("console", (m) => page.consoleMessages.push(`${m.type()}: ${m.text()}`));
  page.on("pageerror", (e) => page.consoleMessages.push(String(e)));
  page.on("request", (r) => page.requests.push(r.url()));
  await page.goto(app.url + path);
  return page;
}

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
});
after(() => browser.close());
beforeEach(async () => {
  app = await startApp();
});
afterEach(async () => {
  await Promise.all(browser.contexts().map((context) => context.close()));
  await app.stop();
});

for (const javaScriptEnabled of [true, false]) {
  describe(javaScriptEnabled ? "with JavaScript" : "without JavaScript", () => {
    test("adding and deleting tasks shows each message once", async () => {
      const page = await visit({ context: { javaScriptEnabled } });
      await add(page, "Milk");
      assert.deepEqual(await flashes(page), ["Added “Milk”."]);
      await add(page, "Bread");
      assert.deepEqual(await names(page), ["Milk", "Bread"]);
      await press(page.getByRole("button", { name: "Delete Milk" }));
      assert.deepEqual(await names(page), ["Bread"]);
      assert.deepEqual(await flashes(page), ["Deleted “Milk”."]);
      assert.equal(await page.title(), "Deleted “Milk” – Task List");
      await page.reload();
      assert.deepEqual(await flashes(page), []);
      assert.deepEqual(page.consoleMessages, []);
    });

    test("tasks are completed, filtered, edited, cleared and brought back", async () => {
      const page = await visit({ context: { javaScriptEnabled } });
      for (const name of ["Milk", "Bread", "Tea"]) await add(page, name);
      await press(page.getByRole("button", { name: "Complete Bread" }));
      assert.deepEqual(await flashes(page), ["Completed “Bread”."]);
      await page.getByRole("button", { name: "Completed. Reopen Bread" }).waitFor();
      await page.getByText("2 tasks left").waitFor();
      await page.getByRole("link", { name: "Active" }).click();
      await page.waitForURL("**/active");
      assert.deepEqual(await names(page), ["Milk", "Tea"]);
      await press(page.getByRole("button", { name: "Complete Tea" }));
      assert.equal(new URL(page.url()).pathname, "/active", "back to where the form was");
      assert.deepEqual(await names(page), ["Milk"]);
      await page.getByRole("link", { name: "Edit Milk" }).click();
      await page.locator("#name").fill("Oat milk");
      await press(page.getByRole("button", { name: "Save" }));
      assert.equal(new URL(page.url()).pathname, "/active");
      assert.deepEqual(await names(page), ["Oat milk"]);
      await press(page.getByRole("button", { name: "Delete completed (2)" }));
      assert.deepEqual(await flashes(page), ["Deleted 2 tasks."]);
      await press(page.getByRole("button", { name: "Undo" }));
      await page.goto(app.url);
      assert.deepEqual(await names(page), ["Oat milk", "Bread", "Tea"]);
      assert.deepEqual(page.consoleMessages, []);
    });

    test("a rejected name stays in the field, with an error and the focus", async () => {
      const page = await visit({ context: { javaScriptEnabled } });
      const typed = "y".repeat(501);
      await add(page, typed);
      const field = page.getByRole("textbox", { name: "Task name" });
      assert.equal(await field.inputValue(), typed);
      assert.match(await page.title(), /^Error: Task name is too long/);
      await page.getByText("the limit is 500.").waitFor();
      await page.locator("#name:focus").waitFor();
    });
  });
}

test("the app works with the keyboard alone", async () => {
  const page = await visit();
  await page.keyboard.press("Tab");
  await page.keyboard.type("Milk");
  await page.keyboard.press("Enter");
  await page.getByText("Added “Milk”.").waitFor();
  // The field has the focus again, ready for the next task.
  await page.locator("#name:focus").waitFor();
  await page.keyboard.type("Bread");
  await page.keyboard.press("Enter");
  await page.getByText("Added “Bread”.").waitFor();
  await page.locator("#name:focus").waitFor();
  const tabTo = async (name) => {
    for (let tabs = 0; tabs < 20; tabs++) {
      await page.keyboard.press("Tab");
      const focused = await page.evaluate(() => document.activeElement.id);
      if (focused === name) return;
    }
    assert.fail(`no ${name}`);
  };
  await tabTo("toggle-1");
  await page.keyboard.press("Enter");
  await page.getByText("Completed “Milk”.").waitFor();
  // The button that was pressed has the focus again.
  await page.locator("#toggle-1:focus").waitFor();
  await page.keyboard.press("Tab"); // "Edit"
  await page.keyboard.press("Enter");
  await page.locator("#name:focus").waitFor();
  await page.keyboard.press("ControlOrMeta+A");
  await page.keyboard.type("Oat milk");
  await page.keyboard.press("Enter");
  await page.getByText("Renamed to “Oat milk”.").waitFor();
  await page.locator("#toggle-1:focus").waitFor();
  await page.keyboard.press("Tab"); // "Edit"
  await page.keyboard.press("Tab"); // "Delete"
  await page.keyboard.press("Enter");
  await page.getByText("Deleted “Oat milk”.").waitFor();
  await page.waitForLoadState("load");
  assert.deepEqual(await names(page), ["Bread"]);
  await page.keyboard.press("Tab"); // "Undo", the first target of the page
  await page.keyboard.press("Enter");
  await page.getByText("Brought back 1 task.").waitFor();
  assert.deepEqual(await names(page), ["Oat milk", "Bread"]);
});

test("the page makes no request to other hosts and logs no console message", async () => {
  const page = await visit();
  for (const name of ODD_NAMES) await add(page, name);
  assert.deepEqual(await names(page), ODD_NAMES);
  await page.reload();
  assert.equal(await page.title(), "Task List");
  assert.deepEqual(page.consoleMessages, []);
  assert.deepEqual(page.requests.filter((url) => !url.startsWith(app.url + "/")), []);
});

test("a form on another site is rejected", async () => {
  const page = await visit();
  await add(page, "Milk");
  const forms = ["/", "/1/delete"].map(
    (path) => `<form method="post" action="${app.url}${path}">
      <input name="name" value="forged"><button>${path}</button></form>`,
  );
  const attacker = createServer((_, res) => res.setHeader("content-type", "text/html").end(forms.join("")));
  await once(attacker.listen(0, "localhost"), "listening");
  try {
    for (const path of ["/", "/1/delete"]) {
      await page.goto(`http://localhost:${attacker.address().port}/`);
      const answer = page.waitForResponse((r) => r.url() === app.url + path);
      await page.getByRole("button", { name: path, exact: true }).click();
      assert.equal((await answer).status(), 403);
      await page.getByRole("heading", { name: "Not accepted" }).waitFor();
    }
  } finally {
    attacker.closeAllConnections();
    attacker.close();
  }
  await page.goto(app.url);
  assert.deepEqual(await names(page), ["Milk"]);
});

// Half of the width at twice the density is how a browser shows a page at 200 %.
const SCREENS = {
  "a screen of 320 px": { viewport: { width: 320, height: 640 } },
  "200 % zoom": { viewport: { width: 640, height: 400 }, deviceScaleFactor: 2 },
  "text of twice the size": { viewport: { width: 1280, height: 800 } },
};

for (const [what, context] of Object.entries(SCREENS)) {
  test(`pages fit ${what}, and targets are at least 24 px`, async () => {
    const page = await visit({ context });
    for (const name of ODD_NAMES) await add(page, name);
    await press(page.locator("#toggle-2"));
    for (const path of ["/", "/completed", "/4/edit", "/cache", "/nowhere"]) {
      await page.goto(app.url + path);
      if (what.startsWith("text")) await page.evaluate(() => (document.documentElement.style.fontSize = "200%"));
      const { width, targets, cut } = await page.evaluate(() => ({
        width: document.documentElement.scrollWidth,
        targets: [...document.querySelectorAll("button, input:not([type=hidden]), nav a, .quiet")]
          .map((e) => e.getBoundingClientRect())
          .map(({ width, height }) => Math.min(width, height)),
        cut: [...document.querySelectorAll(".task-name, button, h1, h2")]
          .filter((e) => !e.querySelector(".visually-hidden"))
          .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
          .map((e) => e.outerHTML.slice(0, 100)),
      }));
      assert.equal(width, context.viewport.width, path);
      assert.deepEqual(cut, [], path);
      assert.ok(Math.min(...targets) >= 24, `${path}: ${targets}`);
    }
  });
}

test("a row has equal space above and below it, whatever its number of lines", async () => {
  for (const width of [320, 1000]) {
    const page = await visit({ context: { viewport: { width, height: 640 } } });
    for (const name of ["Milk", "a b ".repeat(90), "x".repeat(300)]) await add(page, name);
    const spaces = await page.locator(".tasks > li").evaluateAll((rows) =>
      rows.map((row) => {
        const parts = [...row.children].map((part) => part.getBoundingClientRect());
        const { top, bottom } = row.getBoundingClientRect();
        const border = row.clientTop;
        return [
          Math.min(...parts.map((part) => part.top)) - top - border,
          bottom - Math.max(...parts.map((part) => part.bottom)),
        ].map(Math.round);
      }),
    );
    for (const [above, below] of spaces) {
      assert.ok(Math.abs(above - below) <= 1 && above >= 6, `${width} px: ${JSON.stringify(spaces)}`);
    }
  }
});

test("the first visit transfers less than 20 kB", async () => {
  const page = await visit({ path: "/healthz" });
  let bytes = 0;
  page.on("response", async (r) => {
    const sizes = await r.request().sizes();
    bytes += sizes.responseHeadersSize + sizes.responseBodySize;
  });
  await page.goto(app.url, { waitUntil: "networkidle" });
  assert.ok(bytes > 1000 && bytes < 20_000, `${bytes} bytes`);
});

// Returns the accessibility violations that axe finds.
async function violationsOf(page) {
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate(() => axe.run());
  assert.ok(passes.length > 10, "axe checked too few rules");
  return violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" ")}`);
}

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds no violation in the ${colorScheme} colour scheme`, async () => {
    const page = await visit({ context: { colorScheme } });
    assert.deepEqual(await violationsOf(page), [], "empty");
    for (const name of ODD_NAMES) await add(page, name);
    assert.deepEqual(await violationsOf(page), [], "full, with a message");
    await page.goto(app.url);
    await press(page.locator("#delete-1"));
    await page.evaluate(() => document.querySelector("#name").removeAttribute("required"));
    await add(page, "  ");
    assert.deepEqual(await violationsOf(page), [], "with an error");
    await press(page.locator("#toggle-2"));
    assert.deepEqual(await violationsOf(page), [], "with a completed task");
    for (const path of ["/active", "/completed"]) {
      await page.goto(app.url + path);
      assert.deepEqual(await violationsOf(page), [], path);
    }
    await page.goto(app.url + "/3/edit");
    assert.deepEqual(await violationsOf(page), [], "editing");
    await page.locator("[name=original]").evaluate((field) => (field.value = "other"));
    await page.locator("#name").fill("mine");
    await press(page.getByRole("button", { name: "Save" }));
    await page.getByText("Somebody else has changed").waitFor();
    assert.deepEqual(await violationsOf(page), [], "a conflict");
    await page.goto(app.url + "/nowhere");
    assert.deepEqual(await violationsOf(page), [], "error page");
    await page.goto(app.url + "/cache");
    assert.deepEqual(await violationsOf(page), [], "cache page");
  });
}

test("the cache page keeps its place when it loads again by itself", async () => {
  const page = await visit({ context: { viewport: { width: 390, height: 600 } } });
  await page.goto(app.url + "/cache?refresh=1");
  await page.evaluate(() => {
    document.querySelector("#servers").scrollIntoView();
    document.documentElement.dataset.first = "yes";
  });
  const place = () => page.evaluate(() => [document.documentElement.dataset.first ?? "again", Math.round(scrollY)]);
  const [, before] = await place();
  assert.ok(before > 100, "the page is longer than the screen");
  await page.waitForFunction(() => !document.documentElement.dataset.first && document.readyState === "complete");
  assert.deepEqual(await place(), ["again", before]);
});
