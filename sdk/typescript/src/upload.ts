/** Upload: which files go to the server, and in which portions. */

import { ValidationError } from "./errors.js";
import type { SkippedFile } from "./types.js";

/** Names of pictures. The server says which formats it reads, and lists the others with what to do about them. */
const IMAGE = /\.(jpg|jpeg|jpe|jfif|png|apng|webp|heic|heif|hif|avif|gif|bmp|dib|tif|tiff|jxl)$/i;
const CAPTION = /\.(txt|caption|tags)$/i;
const TABLE = /(^|\/)(metadata\.(jsonl|csv)|captions\.(json|jsonl|csv)|meta_[^/]*\.json)$/i;
const NO_PICTURE = {
  reason: "The name is neither that of a picture nor that of captions.",
  remedy: "Pack it into a zip if it is one.",
};
/** Files that may be captions, in forms that are not read: by the name of a picture, or a word in theirs. */
const UNREAD_TEXT = /\.(md|rst|rtf|doc|docx|odt|json|yaml|yml|toml|xml)$/i;
const UNREAD_ROWS = /\.(csv|tsv|jsonl|ndjson)$/i;
const UNREAD_TABLE = /\.(parquet|arrow|feather|xlsx|xls|ods)$/i;
const CAPTION_WORD = /^(captions?|metadata|prompts?|tags?|texts|descriptions?|annotations?)$/;
const UNREAD = {
  reason: "It looks like captions, but they are not read from files of this form or name.",
  remedy: "Save captions as metadata.jsonl, metadata.csv or a .txt file beside each picture.",
};
const HIDDEN = {
  reason: "Hidden files and folders are not uploaded.",
  remedy: "Rename it if it belongs to the dataset.",
};
const NO_IMAGE = { reason: "There is no image of this name.", remedy: "Give it the name of its image." };
/** Of one request, so that a fault costs a part of a large folder only. */
const MOST_FILES = 200;
const LISTED = 3;
const MOST_BYTES = 2 ** 28;

/** A file that may go up. */
export interface Item {
  /** Its path in the dataset's folder, with forward slashes. */
  name: string;
  size: number;
  /** Its bytes, read when they are sent. */
  open: () => Promise<Blob>;
}

/** The files of each request, and what stays here. */
export interface Portions {
  portions: Item[][];
  skipped: SkippedFile[];
}

/** A file that a browser holds; of a folder that was chosen, its path below that. */
export function itemOf(file: File): Item {
  const path = file.webkitRelativePath ?? "";
  return { name: path.split("/").slice(1).join("/") || file.name, size: file.size, open: async () => file };
}

/**
 * The files of each request, an image beside its captions; a file that is alone may be a zip. `where` says in words
 * where they are. Throws a `ValidationError` where there are no images.
 */
export function portions(items: Item[], where: string, options = { isFolder: items.length !== 1 }): Portions {
  if (!options.isFolder) {
    return { portions: [items], skipped: [] };
  }
  const found: Item[][] = [];
  const skipped: SkippedFile[] = [];
  let portion: Item[] = [];
  let size = 0;
  for (const files of together(items, where, skipped)) {
    const more = files.reduce((sum, file) => sum + file.size, 0);
    if (portion.length > 0 && (portion.length + files.length > MOST_FILES || size + more > MOST_BYTES)) {
      found.push(portion);
      portion = [];
      size = 0;
    }
    portion.push(...files);
    size += more;
  }
  return { portions: [...found, portion], skipped };
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

/** What belongs into one request: tables of captions, then each image with its captions. */
function* together(items: Item[], where: string, skipped: SkippedFile[]): Generator<Item[]> {
  const isHidden = (item: Item) => item.name.split("/").some((part) => part.startsWith("."));
  const skip = (files: Item[], why: { reason: string; remedy: string }) =>
    skipped.push(...files.map((item) => ({ name: item.name, ...why })));
  skip(items.filter(isHidden), HIDDEN);
  const files = items.filter((item) => !isHidden(item)).sort((a, b) => (a.name < b.name ? -1 : 1));
  const images = files.filter((item) => IMAGE.test(item.name));
  if (images.length === 0) {
    const remedy = "Name a folder of pictures, such as JPEG or PNG.";
    throw new ValidationError(`There are no images in ${where}.`, { remedy });
  }
  const captions = new Map<string, Item[]>();
  for (const item of files.filter((file) => CAPTION.test(file.name))) {
    captions.set(stem(item), [...(captions.get(stem(item)) ?? []), item]);
  }
  const tables = files.filter((item) => TABLE.test(item.name));
  const others = files.filter((item) => ![IMAGE, CAPTION, TABLE].some((names) => names.test(item.name)));
  const stems = new Set(images.map(stem));
  for (const item of others) {
    skip([item], looksLikeCaptions(item, stems) ? UNREAD : NO_PICTURE);
  }
  if (tables.length > 0) {
    yield tables;
  }
  for (const image of images) {
    const beside = [stem(image), image.name.toLowerCase()].flatMap((name) => captions.get(name) ?? []);
    captions.delete(stem(image)); // once, where two images share it
    captions.delete(image.name.toLowerCase());
    yield [image, ...beside];
  }
  skip([...captions.values()].flat(), NO_IMAGE);
}

/** Sentences about captions that stay here. */
export function warningsOf(skipped: SkippedFile[]): string[] {
  return [UNREAD, NO_IMAGE].flatMap(({ reason, remedy }) => {
    const names = skipped.filter((file) => file.reason === reason).map((file) => file.name);
    const more = names.length > LISTED ? ` and ${names.length - LISTED} more` : "";
    return names.length > 0 ? [`${names.slice(0, LISTED).join(", ")}${more}: ${reason} ${remedy}`] : [];
  });
}

/** Whether a file that stays here may hold captions; `stems` are the images' names without suffix. */
function looksLikeCaptions(item: Item, stems: Set<string>): boolean {
  if (UNREAD_TABLE.test(item.name) || (UNREAD_TEXT.test(item.name) && stems.has(stem(item)))) {
    return true;
  }
  const words = stem(item).split("/").at(-1)?.match(/\p{L}+/gu) ?? [];
  const isList = UNREAD_TEXT.test(item.name) || UNREAD_ROWS.test(item.name);
  return isList && words.some((word) => CAPTION_WORD.test(word));
}

function stem(item: Item): string {
  return item.name.slice(0, item.name.lastIndexOf(".")).toLowerCase();
}
