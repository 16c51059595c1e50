/** Part: the file that a download grows in, and that no other download writes to meanwhile. */

import { createHash, randomUUID } from "node:crypto";
import { readdir, rename } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";

/**
 * A file in a folder for the bytes that have a hash.
 *
 * Its name says which process of which machine is at work on it. What a download leaves is anybody's, and so is what a
 * process of this machine left that has ended: who gives it a name of its own goes on after its bytes.
 */
export class Part {
  /** Where it lies, or is to be made, between `take` and `leave`. */
  readonly path: string;
  readonly #folder: string;
  readonly #stem: string;

  constructor(folder: string, sha256: string) {
    this.#folder = folder;
    this.#stem = `.influencerai-${sha256}`;
    this.path = join(folder, `${this.#stem}.${machine()}-${process.pid}-${randomUUID()}.download`);
  }

  /** Take what an earlier download has left, if one has. */
  async take(): Promise<void> {
    for (const name of await readdir(this.#folder)) {
      if (this.#isFree(name) && (await isRenamed(join(this.#folder, name), this.path))) {
        return;
      }
    }
  }

  /** Leave what there is of it to a later download. */
  async leave(): Promise<void> {
    await isRenamed(this.path, join(this.#folder, `${this.#stem}.download`));
  }

  #isFree(name: string): boolean {
    if (!name.startsWith(this.#stem) || !name.endsWith(".download")) {
      return false;
    }
    const [, place, id] = /^\.(\w+)-(\d+)-/.exec(name.slice(this.#stem.length)) ?? [];
    return place === undefined || (place === machine() && !isAlive(Number(id)));
  }
}

function machine(): string {
  return createHash("sha256").update(hostname()).digest("hex").slice(0, 8);
}

function isAlive(id: number): boolean {
  try {
    return process.kill(id, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== "ESRCH";
  }
}

/** Whether it could be given the name: another download may have been first. */
async function isRenamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") {
      return false;
    }
    throw error;
  }
}
