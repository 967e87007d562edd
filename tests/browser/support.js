// Shared by the browser tests and the audits: starts the app as a process, configures Chromium, and uses a list.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(fileURLToPath(import.meta.url), "../../..");
const built = resolve(root, process.env.CARGO_TARGET_DIR ?? "target", "debug/tasklist");
const program = process.env.TASKLIST ?? built;

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const CHROMIUM_FLAGS = [
  "--no-sandbox", // CI runs as root
  "--disable-gpu",
  "--disable-quic",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// Starts the app in a temporary folder, with an empty database.
export async function startApp(settings = {}) {
  const folder = await mkdtemp(join(tmpdir(), "tasklist-"));
  const env = { PORT: "0", HOST: "127.0.0.1", RUST_LOG: "error", ...settings };
  const child = spawn(program, { cwd: folder, env, stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit"); // rejects if the program does not exist
  const [line] = await Promise.race([
    once(child.stdout.setEncoding("utf8"), "data"),
    ended.then(([code]) => Promise.reject(new Error(`${program} exited with code ${code}`))),
  ]);
  return {
    url: line.match(/http:\S+/)[0],
    async stop() {
      child.kill("SIGKILL");
      await ended;
      await rm(folder, { recursive: true });
    },
  };
}

// Adds a task with the form of a list.
export async function add(page, name) {
  await page.getByRole("textbox", { name: "Task name" }).fill(name);
  await press(page.getByRole("button", { name: "Add Task" }));
}

// Clicks and waits for the next page to load; a click alone resolves at its first bytes.
export async function press(button) {
  await button.click();
  await button.page().waitForLoadState("load");
}

export const names = (page) => page.locator(".task-name").allTextContents();
export const flashes = (page) => page.getByRole("status").locator("p").allTextContents();
