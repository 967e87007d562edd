// The functional points of TodoMVC's specification, each as a test. An app without script answers some of
// them in its own way: a link leads to the form in which a task is edited, and "Delete" is always visible.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium } from "playwright-core";

import { add, CHROMIUM, CHROMIUM_FLAGS, names, press, startApp } from "./support.js";

let browser;
let app;
let page;

before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
});
after(() => browser.close());
beforeEach(async () => {
  app = await startApp();
  page = await browser.newPage({ javaScriptEnabled: false });
  await page.goto(app.url);
});
afterEach(async () => {
  await page.close();
  await app.stop();
});

const filter = (name) => page.getByRole("navigation", { name: "Filter" }).getByRole("link", { name });
const button = (name) => page.getByRole("button", { name, exact: true });
const edit = (name) => press(page.getByRole("link", { name: `Edit ${name}` }));

async function addAll(...all) {
  for (const name of all) await add(page, name);
}

test("1, no todos: list, filters, counter and actions are hidden", async () => {
  assert.equal(await page.getByRole("list").count(), 0);
  assert.equal(await page.getByRole("navigation", { name: "Filter" }).count(), 0);
  assert.equal(await page.getByText("left").count(), 0);
  assert.deepEqual(await page.getByRole("button").allTextContents(), ["Add Task"]);
});

test("2, new todo: Enter adds the trimmed text, and empties and focuses the field", async () => {
  const field = page.getByRole("textbox", { name: "Task name" });
  await field.fill("  Milk  ");
  await field.press("Enter");
  await page.getByText("Added").waitFor();
  assert.deepEqual(await names(page), ["Milk"]);
  assert.equal(await field.inputValue(), "");
  await page.locator("#name:focus").waitFor();
  await field.press("Enter"); // The browser keeps a form that is not filled in.
  await field.fill("   ");
  await field.press("Enter");
  await page.getByText("Task name is required.").waitFor();
  assert.deepEqual(await names(page), ["Milk"]);
});

test("3, mark all as complete: one button completes all, and is gone when all are", async () => {
  await addAll("Milk", "Bread");
  await press(button("Complete all"));
  assert.equal(await page.locator("li.completed").count(), 2);
  assert.equal(await button("Complete all").count(), 0);
  await press(button("Completed. Reopen Milk"));
  assert.equal(await button("Complete all").count(), 1);
});

test("4, item: its checkbox completes it and opens it again", async () => {
  await addAll("Milk");
  await press(button("Complete Milk"));
  assert.equal(await page.locator("li.completed").count(), 1);
  await press(button("Completed. Reopen Milk"));
  assert.equal(await page.locator("li.completed").count(), 0);
});

test("5, item: it can be edited", async () => {
  await addAll("Milk");
  await edit("Milk");
  assert.equal(await page.locator("#name").inputValue(), "Milk");
  await page.locator("#name:focus").waitFor();
});

test("6, item: it can be deleted", async () => {
  await addAll("Milk", "Bread");
  await press(button("Delete Milk"));
  assert.deepEqual(await names(page), ["Bread"]);
});

test("7, editing: Enter saves the trimmed text, Cancel discards it, an empty one is refused", async () => {
  await addAll("Milk");
  await edit("Milk");
  await page.locator("#name").fill("  Oat milk ");
  await page.locator("#name").press("Enter");
  await page.getByText("Renamed").waitFor();
  assert.deepEqual(await names(page), ["Oat milk"]);
  await edit("Oat milk");
  await page.locator("#name").fill("Tea");
  await press(page.getByRole("link", { name: "Cancel" }));
  assert.deepEqual(await names(page), ["Oat milk"]);
  await edit("Oat milk");
  await page.locator("#name").fill(" ");
  await page.locator("#name").press("Enter");
  await page.getByText("Task name is required.").waitFor();
  await page.goto(app.url);
  assert.deepEqual(await names(page), ["Oat milk"]);
});

test("8, counter: it counts the tasks that are left, in the right number", async () => {
  await addAll("Milk", "Bread");
  await page.getByText("2 tasks left", { exact: true }).waitFor();
  await press(button("Complete Milk"));
  await page.getByText("1 task left", { exact: true }).waitFor();
  await press(button("Complete Bread"));
  await page.getByText("0 tasks left", { exact: true }).waitFor();
});

test("9, clear completed: it deletes the completed tasks, and is hidden when there are none", async () => {
  await addAll("Milk", "Bread");
  assert.equal(await page.getByRole("button", { name: "Delete completed" }).count(), 0);
  await press(button("Complete Milk"));
  await press(button("Delete completed (1)"));
  assert.deepEqual(await names(page), ["Bread"]);
  assert.equal(await page.getByRole("button", { name: "Delete completed" }).count(), 0);
});

test("10, persistence: tasks, and which are completed, are there at the next visit", async () => {
  await addAll("Milk", "Bread");
  await press(button("Complete Milk"));
  const visitor = await browser.newPage();
  await visitor.goto(app.url);
  assert.deepEqual(await names(visitor), ["Milk", "Bread"]);
  assert.equal(await visitor.locator("li.completed").count(), 1);
  await visitor.close();
});

test("11, routing: all, active and completed have URLs that stay and mark the current list", async () => {
  await addAll("Milk", "Bread");
  await press(button("Complete Milk"));
  for (const [name, path, listed] of [
    ["Active", "/active", ["Bread"]],
    ["Completed", "/completed", ["Milk"]],
    ["All", "/", ["Milk", "Bread"]],
  ]) {
    await press(filter(name));
    assert.equal(new URL(page.url()).pathname, path);
    assert.deepEqual(await names(page), listed);
    assert.equal(await filter(name).getAttribute("aria-current"), "page");
    await page.reload();
    assert.deepEqual(await names(page), listed);
  }
  await press(filter("Active"));
  await press(button("Complete Bread"));
  assert.deepEqual(await names(page), [], "a completed task leaves the list of active ones");
});
