/** Datasets: registered folders of images, and the images in them. */

import { type Connection, segment } from "./connection.js";
import { ValidationError } from "./errors.js";
import type { Listing } from "./listing.js";
import type { MakeOptions } from "./lora-configs.js";
import type {
  Dataset,
  DatasetDraft,
  DatasetImage,
  DatasetQuery,
  DatasetReport,
  DatasetStatus,
  ImageQuery,
  RenamedFile,
  UploadAnswer,
} from "./types.js";
import { formOf, itemOf, portions, warningsOf } from "./upload.js";

/** The server answers an upload when it has decoded every image. */
const LOOKING = 1_800_000;

/** How images are uploaded. */
export interface UploadOptions {
  /** Replace files of the same name that are there with other bytes. */
  replace?: boolean;
  /** Gives up what has not been sent when it is aborted. */
  signal?: AbortSignal;
}

/** The tenant's datasets. */
export class Datasets {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /**
   * Register a folder below the server's root, which need not be there before images are uploaded; its `status` says
   * what was found there. `meta` is free; its `triggerWord` goes into training.
   */
  async create(draft: DatasetDraft, options: MakeOptions = {}): Promise<Dataset> {
    return await this.#connection.make("/datasets", draft, options.idempotencyKey);
  }

  /** One dataset; a pending one is looked at again. */
  async get(id: string): Promise<Dataset> {
    return await this.#connection.get(path(id));
  }

  /** All datasets, the newest first unless sorted otherwise. */
  list(query: DatasetQuery = {}): Listing<Dataset> {
    return this.#connection.list("/datasets", query);
  }

  /** Replace the meta. */
  async update(id: string, change: { meta: Record<string, unknown> }): Promise<Dataset> {
    return await this.#connection.patch(path(id), change);
  }

  /** Set the status by hand. */
  async setStatus(id: string, status: DatasetStatus): Promise<Dataset> {
    return await this.#connection.patch(`${path(id)}/status`, { status });
  }

  /**
   * Forget a dataset, and remove what was uploaded to it; throws `RefusedError` while pending or running jobs use it.
   */
  async delete(id: string): Promise<void> {
    await this.#connection.delete(path(id));
  }

  /** What was seen in the folder, each image with its faults; with `refresh` it is looked at now. */
  async report(id: string, options: { refresh?: boolean } = {}): Promise<DatasetReport> {
    return await this.#connection.get(`${path(id)}/report`, options);
  }

  /**
   * Put images with their captions into the dataset's folder.
   *
   * `source` is a folder on disk, whose images, captions (`cat.txt` for `cat.png`) and tables of captions are taken
   * with those of the folders in it; or one image; or a zip of all these; in a browser, such files themselves. The answer
   * lists what was left out. Many images go up in several requests; of each, the server takes everything or nothing. To upload again what has
   * arrived is no mistake: it counts as unchanged. Throws `ValidationError` where there are no images, or something is
   * wrong with one.
   */
  async upload(id: string, source: string | Iterable<File>, options: UploadOptions = {}): Promise<UploadAnswer> {
    const found =
      typeof source === "string"
        ? await (await import("#disk")).portionsOf(source)
        : portions(Array.from(source, itemOf), "what was given");
    const sum = {
      added: [] as string[],
      replaced: [] as string[],
      unchanged: [] as string[],
      captions: 0,
      skipped: [...found.skipped],
      renamed: [] as RenamedFile[],
      warnings: warningsOf(found.skipped),
      status: "pending" as DatasetStatus,
    };
    for (const portion of found.portions) {
      const answer = await this.#connection.ask<UploadAnswer>(`${path(id)}/images`, {
        form: await formOf(portion, options.replace ?? false),
        timeout: LOOKING,
        signal: options.signal,
      });
      sum.added.push(...answer.added);
      sum.replaced.push(...answer.replaced);
      sum.unchanged.push(...answer.unchanged);
      sum.captions += answer.captions;
      sum.skipped.push(...(answer.skipped ?? []));
      sum.renamed.push(...(answer.renamed ?? []));
      sum.warnings.push(...(answer.warnings ?? []));
      sum.status = answer.status;
    }
    return sum;
  }

  /** The dataset's images with captions and faults, as its folder was last looked at; sorted by path. */
  images(id: string, query: ImageQuery = {}): Listing<DatasetImage> {
    return this.#connection.list(`${path(id)}/images`, query, "path");
  }

  /** A small WebP of the image at this path in the dataset. */
  async thumbnail(id: string, image: string): Promise<Blob> {
    return await this.#connection.blob(`${imagePath(id, image)}/thumbnail`);
  }

  /** Set the caption of the image at this path in the dataset; an empty one removes it. */
  async writeCaption(id: string, image: string, caption: string): Promise<DatasetImage> {
    const answer = await this.#connection.request("PUT", `${imagePath(id, image)}/caption`, { body: { caption } });
    return answer.document() as DatasetImage;
  }
}

function path(id: string): string {
  return `/datasets/${segment(id)}`;
}

function imagePath(id: string, image: string): string {
  const parts = image.split("/");
  if (parts.some((part) => ["", ".", ".."].includes(part))) {
    throw new ValidationError(`'${image}' is no path of an image in a dataset.`);
  }
  return `${path(id)}/images/${parts.map(encodeURIComponent).join("/")}`;
}
