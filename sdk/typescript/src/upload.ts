/** Upload: which files go to the server, and in which portions. */

import { ValidationError } from "./errors.js";

const IMAGE = /\.(jpg|jpeg|jpe|jfif|png|webp)$/i;
const CAPTION = /\.txt$/i;
const TABLES = new Set(["metadata.jsonl", "captions.json"]);
/** Of one request, so that a fault costs a part of a large folder only. */
const MOST_FILES = 200;
const MOST_BYTES = 2 ** 28;

/** A file that may go up. */
export interface Item {
  name: string;
  size: number;
  /** Its bytes, read when they are sent. */
  open: () => Promise<Blob>;
}

/** A file that a browser holds. */
export function itemOf(file: File): Item {
  return { name: file.name, size: file.size, open: async () => file };
}

/**
 * The files of each request, an image beside its caption; a file that is alone may be a zip. `where` says in words
 * where they are. Throws a `ValidationError` where there are no images.
 */
export function portions(items: Item[], where: string, options = { isFolder: items.length !== 1 }): Item[][] {
  if (!options.isFolder) {
    return [items];
  }
  const found: Item[][] = [];
  let portion: Item[] = [];
  let size = 0;
  for (const files of together(items, where)) {
    const more = files.reduce((sum, file) => sum + file.size, 0);
    if (portion.length > 0 && (portion.length + files.length > MOST_FILES || size + more > MOST_BYTES)) {
      found.push(portion);
      portion = [];
      size = 0;
    }
    portion.push(...files);
    size += more;
  }
  return [...found, portion];
}

/** The files as a form. */
export async function formOf(items: Item[], replace: boolean): Promise<FormData> {
  const form = new FormData();
  if (replace) {
    form.append("replace", "true");
  }
  for (const item of items) {
    form.append("files", await item.open(), item.name);
  }
  return form;
}

/** What belongs into one request: tables of captions, then each image with its caption. */
function* together(items: Item[], where: string): Generator<Item[]> {
  const files = items.filter((item) => !item.name.startsWith(".")).sort((a, b) => (a.name < b.name ? -1 : 1));
  const images = files.filter((item) => IMAGE.test(item.name));
  if (images.length === 0) {
    const remedy = "Name a folder of JPEG, PNG or WebP files.";
    throw new ValidationError(`There are no images in ${where}.`, { remedy });
  }
  const captions = new Map(files.filter((item) => CAPTION.test(item.name)).map((item) => [stem(item), item]));
  const tables = files.filter((item) => TABLES.has(item.name.toLowerCase()));
  if (tables.length > 0) {
    yield tables;
  }
  for (const image of images) {
    const caption = captions.get(stem(image));
    captions.delete(stem(image)); // once, where two images share it
    yield caption === undefined ? [image] : [image, caption];
  }
}

function stem(item: Item): string {
  return item.name.slice(0, item.name.lastIndexOf("."));
}
