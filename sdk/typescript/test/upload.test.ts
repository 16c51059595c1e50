/** Which files of a folder go up together. It reads what `npm run build` made. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ValidationError } from "../dist/index.js";
import { formOf, type Item, type Portions, portions, warningsOf } from "../dist/upload.js";

function item(name: string, size = 1): Item {
  return { name, size, open: async () => new Blob([name]) };
}

function names(found: Portions): string[][] {
  return found.portions.map((portion) => portion.map((each) => each.name));
}

test("an image goes with its caption, after the tables; what is neither stays and is listed", () => {
  const files = ["b.JPG", "b.txt", "a.webp", "README.txt", ".c.png", "Captions.json", "b.png", "notes.md", "a.b.txt"];
  assert.deepEqual(names(portions(files.map((name) => item(name)), "here")), [
    ["Captions.json", "a.webp", "b.JPG", "b.txt", "b.png"],
  ]);
  assert.deepEqual(
    portions(files.map((name) => item(name)), "here").skipped.map(({ name }) => name).sort(),
    [".c.png", "README.txt", "a.b.txt", "notes.md"],
  );
});

test("captions that stay here are warned of", () => {
  const files = ["a.png", "a.md", "captions.yaml", "train.parquet", "tags.csv", "b.txt", "README.md", "config.yaml"];
  const { skipped } = portions(files.map((name) => item(name)), "here");
  assert.deepEqual(
    warningsOf(skipped).map((text) => text.split(":")[0]),
    ["a.md, captions.yaml, tags.csv and 1 more", "b.txt"],
  );
});

test("a large folder goes in portions, which part no image from its caption", () => {
  const files = Array.from({ length: 201 }, (_, number) => [item(`${number}.png`), item(`${number}.txt`)]).flat();
  const found = names(portions([item("x.png"), ...files], "here"));
  assert.deepEqual(
    found.map((portion) => portion.length),
    [200, 200, 3],
  );
  for (const portion of found) {
    assert(portion.every((name) => !name.endsWith(".txt") || portion.includes(name.replace(".txt", ".png"))));
  }
  assert.equal(new Set(found.flat()).size, 403);
});

test("a portion has so many bytes, but for one image that alone has more", () => {
  const files = [item("a.png", 2 ** 27), item("b.png", 2 ** 27), item("c.png", 1), item("d.png", 2 ** 29), item("e.png")];
  assert.deepEqual(names(portions(files, "here")), [["a.png", "b.png"], ["c.png"], ["d.png"], ["e.png"]]);
});

test("one file goes as it is, but a folder has images", () => {
  assert.deepEqual(names(portions([item("all.zip")], "here")), [["all.zip"]]);
  const isFolder = { isFolder: true };
  assert.deepEqual(names(portions([item("a.png")], "here", isFolder)), [["a.png"]]);
  for (const files of [[], [item("all.zip")], [item("a.txt"), item(".b.png")]]) {
    assert.throws(() => portions(files, "here", isFolder), ValidationError);
  }
});

test("a form has the files by their names", async () => {
  const form = await formOf([item("ü.png"), item("ü.txt")], true);
  assert.equal(form.get("replace"), "true");
  assert.deepEqual(
    form.getAll("files").map((file) => (file as File).name),
    ["ü.png", "ü.txt"],
  );
  assert.equal((await formOf([], false)).has("replace"), false);
});
