/** Jobs: submitted, looked at, followed until they end, and their files. */

import { type Connection, segment } from "./connection.js";
import { NotFoundError, StoppedError, TrainingError } from "./errors.js";
import { EventFeed, type FollowOptions } from "./events.js";
import type { Listing } from "./listing.js";
import type { MakeOptions } from "./lora-configs.js";
import type {
  CompletedJob,
  Job,
  JobArtifact,
  JobChange,
  JobDetail,
  JobDraft,
  JobEvent,
  JobMetric,
  JobProgress,
  JobQuery,
  JobSeries,
  Preflight,
  RunningJob,
  SeriesQuery,
} from "./types.js";

/** How a job is waited for. */
export interface WaitOptions extends FollowOptions {
  /** Called each time that the job has come further, in order; what it returns is awaited. */
  onProgress?: (job: RunningJob) => unknown;
}

/** Which files of a job go where. */
export interface DownloadOptions {
  /** The folder, which is made; nothing is written elsewhere, whatever names the server gives. */
  to: string;
  /** Only these files. */
  names?: Iterable<string>;
  /** Only files of this kind. */
  kind?: JobArtifact["kind"];
  /** Replace files of the same name that are there with other bytes. */
  replace?: boolean;
  /** Ends it when it is aborted; the next call goes on from there. */
  signal?: AbortSignal;
}

/** The tenant's jobs. */
export class Jobs {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /**
   * Submit a training. Throws `NotFoundError` where dataset or configuration are not there, and `TooManyError` where
   * too many of the tenant's jobs are active, also after the waits that the server asked for.
   */
  async create(draft: JobDraft, options: MakeOptions = {}): Promise<Job> {
    return await this.#connection.make("/jobs", draft, options.idempotencyKey);
  }

  /** What such a job would do, need and fail on; nothing is stored. */
  async dryRun(draft: JobDraft): Promise<Preflight> {
    const options = { query: { dryRun: true }, body: draft, isRepeatable: true };
    return (await this.#connection.request("POST", "/jobs", options)).document() as Preflight;
  }

  /** One job with what it trains and every attempt at it. */
  async get(id: string): Promise<JobDetail> {
    return await this.#connection.get(path(id));
  }

  /** All jobs that pass each filter, the newest first unless sorted otherwise. */
  list(query: JobQuery = {}): Listing<Job> {
    const { metadata = {}, ...filters } = query;
    const pairs = Object.entries(metadata).map(([key, value]) => `${key}:${value}`);
    return this.#connection.list("/jobs", { ...filters, metadata: pairs });
  }

  /**
   * Report on a job as its worker; to `running` it takes a pending job, and each report keeps it. Throws
   * `ConflictError` where the job has ended, or another worker has it.
   */
  async update(id: string, change: JobChange): Promise<Job> {
    return await this.#connection.patch(path(id), change);
  }

  /**
   * End a job that has not ended, a running one at its next step; throws `ConflictError` where it has ended by itself.
   */
  async cancel(id: string): Promise<Job> {
    return await this.#connection.ask(`${path(id)}/cancel`);
  }

  /**
   * A new job that goes on from the last checkpoint of a failed or cancelled one; throws `ConflictError` where the job
   * has not ended, or was completed.
   */
  async retry(id: string, options: MakeOptions = {}): Promise<Job> {
    return await this.#connection.make(`${path(id)}/retry`, undefined, options.idempotencyKey);
  }

  /** Delete an ended job with its files; throws `ConflictError` where it has not ended. */
  async delete(id: string): Promise<void> {
    await this.#connection.delete(path(id));
  }

  /** How many jobs ended how, per day, week or month. */
  async series(query: SeriesQuery = {}): Promise<JobSeries> {
    return await this.#connection.get("/jobs/series", query);
  }

  /** What has happened to a job until now, from the event after number `after` on. */
  async *events(id: string, options: { after?: number } = {}): AsyncGenerator<JobEvent, void, undefined> {
    let after = options.after ?? 0;
    let page: JobEvent[];
    do {
      page = await this.#connection.items(`${path(id)}/events`, { after, take: 1_000 });
      yield* page;
      after = page.at(-1)?.seq ?? after;
    } while (page.length === 1_000);
  }

  /**
   * What has happened to a job and what happens to it, as it happens, until it has ended.
   *
   * A cut stream, a lost network and a server that is started again cost nothing: each event comes once. Throws
   * `UnreachableError` where the server did not come back, and `TimedOutError` where the job has not ended in time.
   */
  async *follow(id: string, options: FollowOptions = {}): AsyncGenerator<JobEvent, void, undefined> {
    yield* new EventFeed(this.#connection, id, options).events();
  }

  /**
   * The job when it is completed.
   *
   * Throws `TrainingError` where the job failed (the message is its error, `failure` its result), `StoppedError` where
   * it was cancelled, `TimedOutError` where it has not ended in time (it goes on), and `UnreachableError` where the
   * server did not come back.
   */
  async waitForCompletion(id: string, options: WaitOptions = {}): Promise<CompletedJob> {
    const { onProgress, ...following } = options;
    const feed = new EventFeed(this.#connection, id, following);
    let seen: JobDetail | undefined;
    let told = "";
    for await (const event of feed.events()) {
      if (onProgress === undefined || !isProgress(event)) {
        continue;
      }
      if (seen === undefined || event.type === "status") {
        seen = await feed.job();
      }
      const job = runningJob(seen, event);
      const progress = JSON.stringify(job?.result.progress);
      if (job !== undefined && progress !== told) {
        told = progress;
        await onProgress(job);
      }
    }
    return completed(await feed.job());
  }

  /** Loss, learning rate and speed over the steps, thinned to about `points`. */
  async metrics(id: string, options: { points?: number } = {}): Promise<JobMetric[]> {
    return await this.#connection.items(`${path(id)}/metrics`, options);
  }

  /** The files that the job has published, in the order of training. */
  async artifacts(id: string): Promise<JobArtifact[]> {
    return await this.#connection.items(`${path(id)}/artifacts`);
  }

  /**
   * Fetch the job's files into a folder; returns where they lie, in the order of training.
   *
   * Each is compared with its hash before it gets its name. What was cut off goes on where it stopped, by this call or
   * by the next. A file that is there already is not fetched again. Throws `NotFoundError` where the job has no file of
   * one of the names, and `ConflictError` where another file is there under a name, and not to be replaced. It needs
   * Node.
   */
  async download(id: string, options: DownloadOptions): Promise<string[]> {
    const { download } = await import("#disk");
    const found = await this.artifacts(id);
    const names = options.names === undefined ? undefined : new Set(options.names);
    const missing = [...(names ?? [])].filter((name) => !found.some((item) => item.name === name));
    if (missing.length > 0) {
      throw new NotFoundError(`Job ${id} has no file ${missing.join(", ")}`);
    }
    const chosen = found.filter(
      (item) => (options.kind ?? item.kind) === item.kind && (names?.has(item.name) ?? true),
    );
    return await download(this.#connection, `${path(id)}/artifacts`, chosen, options);
  }

  /** A small WebP of a sample that the job has drawn. */
  async thumbnail(id: string, name: string): Promise<Blob> {
    return await this.#connection.blob(`${path(id)}/artifacts/${segment(name)}/thumbnail`);
  }

  /** One file of the job, for where there is no disk to download to. */
  async artifact(id: string, name: string): Promise<Blob> {
    return await this.#connection.blob(`${path(id)}/artifacts/${segment(name)}`);
  }
}

function path(id: string): string {
  return `/jobs/${segment(id)}`;
}

/** Whether a job shows other progress from this event on: it has begun, or come further. */
function isProgress(event: JobEvent): boolean {
  return event.type === "progress" || (event.type === "status" && event.data["status"] === "running");
}

/** The job as it was at an event; undefined where a worker that is not ours does not say how far it is. */
function runningJob(job: JobDetail, event: JobEvent): RunningJob | undefined {
  const begin = { currentEpoch: 0, totalEpochs: Number(job.training?.config.epochs) };
  const told: JobProgress = event.type === "progress" ? event.data : begin;
  const { currentEpoch, totalEpochs } = { totalEpochs: begin.totalEpochs, ...told };
  if (currentEpoch === undefined || !Number.isFinite(currentEpoch) || !Number.isFinite(totalEpochs)) {
    return undefined;
  }
  const result = { progress: { ...told, currentEpoch, totalEpochs } };
  return { ...job, status: "running", result, finishedAt: null, updatedAt: event.createdAt };
}

function completed(job: JobDetail): CompletedJob {
  if (job.status === "failed") {
    const failure = job.result ?? {};
    const Kind = failure.cancelled ? StoppedError : TrainingError;
    const details = { failure, code: failure.code, remedy: failure.remedy ?? undefined };
    throw new Kind(failure.error || "The job failed.", details);
  }
  return { ...job, status: "completed", result: job.status === "completed" ? (job.result ?? {}) : {} };
}
