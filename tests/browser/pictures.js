// Takes the pictures of the app in docs/pictures: see bin/pictures.
//
// The app runs with two memcached servers. Visitors read and change the list for some minutes, so that the
// charts of /cache have content.

import { spawn, spawnSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { add, CHROMIUM, CHROMIUM_FLAGS, press, startApp } from "./support.js";

const FOLDER = fileURLToPath(new URL("../../docs/pictures/", import.meta.url));
const MINUTES = Number(process.argv[2] ?? 10); // the charts show ten

// Loopback addresses at which a server of another program is unlikely.
const SERVERS = ["127.0.0.2:11211", "127.0.0.3:11211"];

const WIDE = { viewport: { width: 1280, height: 800 } };
const DARK = { ...WIDE, colorScheme: "dark" };
const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

const COMPLETED = "Water the tomatoes";
const OPEN = [
  "Book train tickets to Lyon",
  "Reply to Amina about the flat",
  "Buy coffee, oats and olive oil",
  "Renew the library card",
];
const DELETED = "Return the borrowed drill";

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const pick = (list) => list[Math.floor(Math.random() * list.length)];

function startMemcached(address) {
  const [host, port] = address.split(":");
  const user = process.getuid() === 0 ? ["-u", "nobody"] : []; // as root, memcached requires a user
  return spawn("memcached", ["-l", host, "-p", port, "-U", "0", ...user], { stdio: "inherit" });
}

async function fill(browser, url) {
  const page = await browser.newPage();
  await page.goto(url);
  for (const name of [COMPLETED, ...OPEN, DELETED]) await add(page, name);
  await press(page.getByRole("button", { name: `Complete ${COMPLETED}` }));
  await page.close();
}

// A visitor without a browser, with cookies.
function visitor(url) {
  const cookies = new Map();
  const request = async (path, options = {}) => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(url + path, { ...options, headers: { cookie }, redirect: "manual" });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
      cookies.set(name, value);
    }
    return answer;
  };
  return {
    // Sends a form, opens the page that the answer names, and returns its HTML.
    async send(path, form = {}) {
      const answer = await request(path, { method: "POST", body: new URLSearchParams(form) });
      if (answer.status !== 303) throw new Error(`POST ${path}: ${answer.status}`);
      const page = await request(answer.headers.get("location"));
      await pause(400);
      return page.text();
    },
  };
}

const lastId = (page) => Math.max(...[...page.matchAll(/formaction="\/(\d+)\/delete"/g)].map(([, id]) => id));

// Completes a task and opens it again; or adds one, deletes it, brings it back and deletes it. The list
// stays the same.
async function change(url) {
  const { send } = visitor(url);
  if (Math.random() < 0.5) {
    const id = 2 + Math.floor(Math.random() * OPEN.length);
    await send(`/${id}/complete`);
    await send(`/${id}/reopen`);
  } else {
    const added = await send("/", { name: "Pick up the parcel" });
    await send(`/${lastId(added)}/delete`);
    const restored = await send("/undo");
    await send(`/${lastId(restored)}/delete`);
  }
}

async function changeUntil(end, url) {
  while (Date.now() < end) {
    await change(url);
    await pause(8_000 * Math.random());
  }
}

// Reads the list 14 to 58 times a second, and changes it every few seconds.
async function visit(url) {
  const end = Date.now() + MINUTES * 60_000;
  const changes = changeUntil(end, url);
  while (Date.now() < end) {
    const answer = await fetch(url + pick(["/", "/", "/", "/", "/", "/", "/active", "/completed"]));
    await answer.text();
    const rate = 36 + 14 * Math.sin(Date.now() / 40_000) + 8 * Math.sin(Date.now() / 11_000);
    await pause(1_000 / rate);
  }
  await changes;
}

// Takes a picture: on a phone of the screen, else of the whole page without the empty margins beside `width`.
async function take(page, name, width) {
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.activeElement.blur());
  await page.evaluate(() => scrollTo(0, 0));
  const path = `${FOLDER}${name}.png`;
  if (width) {
    const bottom = await page.evaluate(() => document.querySelector("main").getBoundingClientRect().bottom);
    const clip = { x: (WIDE.viewport.width - width) / 2, y: 0, width, height: Math.round(bottom) + 40 };
    await page.screenshot({ path, fullPage: true, clip });
  } else {
    await page.screenshot({ path });
  }
  spawnSync("pngquant", ["--force", "--output", path, path]); // if it is installed
}

// Shows the list with the message about a deleted task, then brings the task back.
async function takeTasks(browser, url, name, options, width) {
  const page = await browser.newPage(options);
  await page.goto(url);
  await press(page.getByRole("button", { name: `Delete ${DELETED}` }));
  await take(page, name, width);
  await press(page.getByRole("button", { name: "Undo" }));
  await page.close();
}

async function takeCache(browser, url, name, options, width) {
  const page = await browser.newPage(options);
  await page.goto(`${url}/cache`);
  await take(page, name, width);
  await page.close();
}

async function main() {
  await mkdir(FOLDER, { recursive: true });
  const servers = SERVERS.map(startMemcached);
  const { url, stop } = await startApp({ MEMCACHE_SERVERS: SERVERS.join(",") });
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_FLAGS });
  try {
    await fill(browser, url);
    await visit(url);
    await takeCache(browser, url, "cache", WIDE, 1040);
    await takeCache(browser, url, "cache-phone", PHONE);
    await takeTasks(browser, url, "tasks", WIDE, 800);
    await takeTasks(browser, url, "tasks-dark", DARK, 800);
    await takeTasks(browser, url, "tasks-phone", PHONE);
  } finally {
    await browser.close();
    await stop();
    for (const server of servers) server.kill();
  }
}

await main();
