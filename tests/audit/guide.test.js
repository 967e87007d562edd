// The HTML of the guide, by an HTML validator. `bin/guide build` makes it.

import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { HtmlValidate } from "html-validate";

const folder = fileURLToPath(new URL("../../target/guide", import.meta.url));
const pages = (await readdir(folder)).filter((name) => /^(\d\d-.*|index)\.html$/.test(name)).sort();
const validator = new HtmlValidate({
  root: true,
  extends: ["html-validate:recommended", "html-validate:document"],
  rules: {
    // Files beside the page need no integrity attribute.
    "require-sri": ["error", { target: "crossorigin" }],
    // HTML allows an id that begins with a digit, such as those of headings here.
    "valid-id": ["error", { relaxed: true }],
  },
});

for (const name of pages) {
  test(`the HTML validator finds no error in ${name}`, async () => {
    const { results } = await validator.validateString(await readFile(`${folder}/${name}`, "utf8"));
    const findings = results.flatMap(({ messages }) => messages);
    assert.deepEqual(findings.map((m) => `${m.line}:${m.column} ${m.ruleId}: ${m.message}`), []);
  });
}
