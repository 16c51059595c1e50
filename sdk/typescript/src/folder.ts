/** Folder: the files on disk that are uploaded. */

import { openAsBlob } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";

import { ValidationError } from "./errors.js";
import { type Item, portions } from "./upload.js";

/** The files of each request; throws a `ValidationError` where there is nothing to upload. */
export async function portionsOf(source: string): Promise<Item[][]> {
  const items: Item[] = [];
  let isFolder: boolean;
  try {
    isFolder = (await stat(source)).isDirectory();
    const paths = isFolder ? (await readdir(source)).map((name) => join(source, name)) : [source];
    for (const found of await Promise.all(paths.map(itemAt))) {
      items.push(...found);
    }
  } catch (error) {
    throw new ValidationError(`${source} cannot be uploaded: ${(error as Error).message}.`, {
      cause: error,
      remedy: "Name a folder of images, an image or a zip.",
    });
  }
  return portions(items, source, { isFolder });
}

/** The file at a path, if there is one: folders and links that lead nowhere are none. */
async function itemAt(path: string): Promise<Item[]> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() ? [{ name: basename(path), size: found.size, open: () => opened(path) }] : [];
}

async function opened(path: string): Promise<Blob> {
  try {
    return await openAsBlob(path);
  } catch (error) {
    throw new ValidationError(`${path} cannot be read: ${(error as Error).message}.`, { cause: error });
  }
}
