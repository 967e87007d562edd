// What the tests share: the app as a process of its own, and the browser.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(fileURLToPath(import.meta.url), "../../..");
const program = process.env.TASKLIST ?? join(root, "target/debug/tasklist");

export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const CHROMIUM_FLAGS = [
  "--no-sandbox", // CI runs as root
  "--disable-gpu",
  "--disable-quic",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// The app with an empty database in a folder of its own.
export async function startApp(settings = {}) {
  const folder = await mkdtemp(join(tmpdir(), "tasklist-"));
  const env = { PORT: "0", HOST: "127.0.0.1", RUST_LOG: "error", ...settings };
  const child = spawn(program, { cwd: folder, env, stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit"); // rejects if there is no such program
  const [line] = await Promise.race([
    once(child.stdout.setEncoding("utf8"), "data"),
    ended.then(([code]) => Promise.reject(new Error(`${program} ended with ${code}`))),
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
