/** Folder: the files on disk that are uploaded. */

import { existsSync, openAsBlob } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";

import { ValidationError } from "./errors.js";
import type { SkippedFile } from "./types.js";
import { type Item, type Portions, portions } from "./upload.js";

/** The file by which a training marks its output folder. */
const RUN_MARKER = ".influencerai-run";
const OF_A_RUN = {
  reason: "A training wrote this folder.",
  remedy: "Upload the pictures that you want from it by themselves.",
};
const HIDDEN = {
  reason: "Hidden files and folders are not uploaded.",
  remedy: "Rename it if it belongs to the dataset.",
};
const UNREADABLE = {
  reason: "The file is a link to nothing, or no regular file.",
  remedy: "Replace it by the file itself.",
};
const SYSTEM_FOLDERS = new Set(["__macosx", "__pycache__", "@eadir"]);

/** The files of each request; throws a `ValidationError` where there is nothing to upload. */
export async function portionsOf(source: string): Promise<Portions> {
  const items: Item[] = [];
  const skipped: SkippedFile[] = [];
  let isFolder: boolean;
  try {
    isFolder = (await stat(source)).isDirectory();
    if (isFolder) {
      await list(source, "", items, skipped);
    } else {
      items.push(...(await itemAt(source, basename(source))));
    }
  } catch (error) {
    throw new ValidationError(`${source} cannot be uploaded: ${(error as Error).message}.`, {
      cause: error,
      remedy: "Name a folder of images, an image or a zip.",
    });
  }
  const found = portions(items, source, { isFolder });
  return { portions: found.portions, skipped: [...skipped, ...found.skipped] };
}

/** Add the files of a folder and of those below it, and what is passed over with all in it. Links are not entered. */
async function list(root: string, prefix: string, items: Item[], skipped: SkippedFile[]): Promise<void> {
  const entries = await readdir(join(root, prefix), { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const name = `${prefix}${entry.name}`;
    const path = join(root, name);
    if (!entry.isDirectory()) {
      const found = await itemAt(path, name);
      items.push(...found.filter(() => entry.name !== RUN_MARKER));
      skipped.push(...(found.length === 0 ? [{ name, ...UNREADABLE }] : []));
    } else if (entry.name.startsWith(".") || SYSTEM_FOLDERS.has(entry.name.toLowerCase())) {
      skipped.push({ name: `${name}/`, ...HIDDEN });
    } else if (existsSync(join(path, RUN_MARKER)) || (name === "samples" && existsSync(join(root, RUN_MARKER)))) {
      skipped.push({ name: `${name}/`, ...OF_A_RUN });
    } else {
      await list(root, `${name}/`, items, skipped);
    }
  }
}

/** The file at a path, if there is one: folders and links that lead nowhere are none. */
async function itemAt(path: string, name: string): Promise<Item[]> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ? [{ name, size: found.size, open: () => opened(path) }] : [];
}

async function opened(path: string): Promise<Blob> {
  try {
    return await openAsBlob(path);
  } catch (error) {
    throw new ValidationError(`${path} cannot be read: ${(error as Error).message}.`, { cause: error });
  }
}
