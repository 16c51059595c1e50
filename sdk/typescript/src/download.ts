/** Download: a job's files, whole and proven by their hashes, in the folder that was named and nowhere else. */

import { createHash } from "node:crypto";
import { constants, createReadStream, type Stats } from "node:fs";
import { type FileHandle, link, lstat, mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";

import { type Connection, type OpenAnswer, segment } from "./connection.js";
import { ConflictError, InfluencerAIError, UnreachableError } from "./errors.js";
import { Part } from "./part.js";
import { sleep } from "./time.js";
import type { JobArtifact } from "./types.js";

const FIRST_PAUSE = 200;
const SHA256 = /^[0-9a-f]{64}$/;
/** What no name of a file may hold: controls, half surrogate pairs, separators; on Windows more. */
const FORBIDDEN =
  process.platform === "win32"
    ? /[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\:*?"<>|]/u
    : /[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/\\]/u;

interface Options {
  to: string;
  replace?: boolean;
  signal?: AbortSignal;
}

/**
 * Fetch the files below an address one after the other; returns where they lie. All names are checked before the first
 * is fetched.
 */
export async function download(
  connection: Connection,
  address: string,
  artifacts: readonly JobArtifact[],
  options: Options,
): Promise<string[]> {
  const downloads = artifacts.map((artifact) => new Download(connection, address, artifact, options));
  try {
    await mkdir(options.to, { recursive: true });
  } catch (error) {
    const reason = (error as Error).message;
    throw new InfluencerAIError(`The folder ${options.to} cannot be made: ${reason}.`, { cause: error });
  }
  const found: string[] = [];
  for (const each of downloads) {
    found.push(await each.run());
  }
  return found;
}

/**
 * One file of a job on its way into a folder.
 *
 * It grows in a part of its own, where a later call goes on when this one is cut off, and gets its name when its bytes
 * are the ones that were announced.
 */
class Download {
  readonly #connection: Connection;
  readonly #artifact: JobArtifact;
  readonly #options: Options;
  readonly #address: string;
  readonly #target: string;
  readonly #part: Part;

  constructor(connection: Connection, address: string, artifact: JobArtifact, options: Options) {
    this.#connection = connection;
    this.#artifact = artifact;
    this.#options = options;
    this.#address = `${address}/${segment(checkedName(artifact.name))}`;
    this.#target = join(options.to, artifact.name);
    if (!SHA256.test(artifact.sha256)) {
      throw new InfluencerAIError(`The server names no SHA-256 of its file ${artifact.name}.`);
    }
    this.#part = new Part(options.to, artifact.sha256);
  }

  /**
   * Where the file lies when it is there. Throws `ConflictError` where another file of that name is there, and not to
   * be replaced; `UnreachableError` where the server was lost, and did not come back; and an `InfluencerAIError` where
   * what arrives is again and again not what was announced, or the disk refuses.
   */
  async run(): Promise<string> {
    try {
      return await this.#run();
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      if (error instanceof InfluencerAIError || !isOfDisk(error)) {
        throw error;
      }
      throw new InfluencerAIError(`${this.#target} cannot be written: ${error.message}.`, {
        cause: error,
        remedy: "Free space on that disk, or name a folder that you may write to.",
      });
    }
  }

  async #run(): Promise<string> {
    if (await this.#isThere(this.#target)) {
      return this.#target;
    }
    if ((await look(this.#target)) !== undefined && !this.#options.replace) {
      throw this.#conflict();
    }
    await this.#part.take();
    try {
      for (let number = 0; number < 2; number++) {
        await this.#fetch();
        if (await this.#isThere(this.#part.path)) {
          await this.#name();
          return this.#target;
        }
        await rm(this.#part.path, { force: true });
      }
    } finally {
      await this.#part.leave();
    }
    const remedy = "Try again later.";
    throw new InfluencerAIError(`The file ${this.#artifact.name} arrives damaged.`, { remedy });
  }

  /** Give the whole file its name, which another file may have got meanwhile. */
  async #name(): Promise<void> {
    if (this.#options.replace) {
      await rename(this.#part.path, this.#target);
      return;
    }
    try {
      await link(this.#part.path, this.#target);
    } catch {
      if ((await look(this.#target)) === undefined) {
        await rename(this.#part.path, this.#target); // there are no links here
        return;
      }
      if (!(await this.#isThere(this.#target))) {
        throw this.#conflict();
      }
    }
    await rm(this.#part.path);
  }

  #conflict(): ConflictError {
    const remedy = "Name another folder, or have it replaced.";
    return new ConflictError(`${this.#target} is there with other content.`, { remedy });
  }

  /** All bytes that are missing, by as many requests as that takes. */
  async #fetch(): Promise<void> {
    let fruitless = 0;
    let begin = await this.#size();
    while (begin === undefined || begin < this.#artifact.size) {
      const cut = await this.#append(begin ?? 0);
      const size = await this.#size();
      if (cut === undefined && (size ?? 0) < this.#artifact.size) {
        return; // which is another file than the one that was announced
      }
      if (cut !== undefined) {
        fruitless = (size ?? 0) > (begin ?? 0) ? 0 : fruitless + 1;
        if (fruitless > this.#connection.retries) {
          throw cut;
        }
        await sleep(FIRST_PAUSE * 2 ** fruitless, this.#options.signal);
      }
      begin = size;
    }
  }

  /** Write what comes from a byte on; returns what cut it off, if something did. */
  async #append(begin: number): Promise<UnreachableError | undefined> {
    const headers: Record<string, string> = { accept: "*/*", "accept-encoding": "identity" };
    if (begin > 0) {
      headers["range"] = `bytes=${begin}-`;
      headers["if-range"] = `"${this.#artifact.sha256}"`;
    }
    const options = { headers, accepted: 416, signal: this.#options.signal };
    const answer = await this.#connection.open(this.#address, options);
    try {
      if (answer.status === 416) {
        await rm(this.#part.path, { force: true });
        return undefined;
      }
      const goesOn = answer.headers.get("content-range")?.startsWith(`bytes ${begin}-`) ?? false;
      if (answer.status !== 200 && !(answer.status === 206 && goesOn)) {
        const file = `the file ${this.#artifact.name}`;
        throw new InfluencerAIError(`The server answered ${answer.status} where ${file} was due.`);
      }
      const isMore = answer.status === 206;
      const flags = constants.O_WRONLY | constants.O_CREAT | (constants.O_NOFOLLOW ?? 0);
      const file = await open(this.#part.path, flags | (isMore ? constants.O_APPEND : constants.O_TRUNC), 0o666);
      try {
        return await this.#write(file, answer, this.#artifact.size - (isMore ? begin : 0));
      } finally {
        await file.close();
      }
    } finally {
      answer.close();
    }
  }

  async #write(file: FileHandle, answer: OpenAnswer, expected: number): Promise<UnreachableError | undefined> {
    let left = expected;
    const chunks = answer.chunks(() => this.#connection.timeout);
    while (left >= 0) {
      let next: IteratorResult<Uint8Array, void>;
      try {
        next = await chunks.next();
      } catch (error) {
        this.#options.signal?.throwIfAborted();
        return this.#connection.unreachable(error, answer.isSilent);
      }
      if (next.done) {
        break;
      }
      left -= next.value.byteLength; // below zero it is more than was announced: the hash will tell
      await file.writeFile(next.value);
    }
    await file.sync();
    return undefined;
  }

  /** Whether a file has the announced bytes; a link has none. */
  async #isThere(path: string): Promise<boolean> {
    const found = await look(path);
    if (!found?.isFile() || found.size !== this.#artifact.size) {
      return false;
    }
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(path)) {
      hash.update(chunk as Uint8Array);
    }
    return hash.digest("hex") === this.#artifact.sha256;
  }

  /** How much has arrived; undefined where nothing has. */
  async #size(): Promise<number | undefined> {
    const found = await look(this.#part.path);
    if (found?.isSymbolicLink() || (found?.isFile() && found.nlink > 1)) {
      await rm(this.#part.path); // its bytes have another name too, under which they are not to change
      return undefined;
    }
    return found?.isFile() ? found.size : undefined;
  }
}

/**
 * The name, where it can be that of a file in a folder on any system; throws an `InfluencerAIError` where it cannot.
 */
export function checkedName(name: string): string {
  const isLong = new TextEncoder().encode(name).length > 255;
  if (name === "" || /^\.|[. ]$/.test(name) || isLong || FORBIDDEN.test(name)) {
    const shown = JSON.stringify(name.slice(0, 300));
    throw new InfluencerAIError(`The server names a file ${shown}, which is no safe name for one.`);
  }
  return name;
}

/** What lies at a path, itself and not what it links to. */
async function look(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path);
  } catch (error) {
    if (isOfDisk(error) && error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}

function isOfDisk(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && "syscall" in error;
}
