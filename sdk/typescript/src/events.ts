/** Events: what happens to a job, followed by its stream, and by asking again and again where that is cut off. */

import { isDocument } from "./answers.js";
import { type Connection, segment } from "./connection.js";
import { InfluencerAIError, StoreError, TimedOutError, TooManyError, UnreachableError } from "./errors.js";
import { EventStreamParser } from "./event-stream.js";
import { now, sleep } from "./time.js";
import type { JobDetail, JobEvent } from "./types.js";

const PAGE = 1_000;
/** A stream sends its first comment at once; where that does not come, something on the way holds streams back. */
const OPENING = 10_000;
/** A stream that sends not even a heartbeat for so long is dead; the server sends one every 15 seconds. */
const SILENCE = 45_000;

/** How a job is followed; every span is in milliseconds. */
export interface FollowOptions {
  /** Events of a higher number only. */
  after?: number;
  /** Between two questions where there is no stream of events; by default 2 seconds. */
  pollInterval?: number;
  /** Without any answer from the server, after which it is given up; by default ten minutes. */
  patience?: number;
  /** In all; by default as long as it takes. */
  timeout?: number;
  /** Ends it when it is aborted; the job goes on. */
  signal?: AbortSignal;
}

/**
 * The events of one job from a number on, until the job has ended.
 *
 * Whatever breaks on the way (a stream, the network, the server itself for a while), each event comes once and in
 * order: the number of the last one says where to go on.
 */
export class EventFeed {
  readonly #connection: Connection;
  readonly #id: string;
  readonly #path: string;
  readonly #pollInterval: number;
  readonly #patience: number;
  readonly #timeout: number;
  readonly #signal: AbortSignal | undefined;
  readonly #begun = now();
  #after: number;
  #hasEnded = false;
  #canStream = true;

  constructor(connection: Connection, id: string, options: FollowOptions = {}) {
    this.#connection = connection;
    this.#id = id;
    this.#path = `/jobs/${segment(id)}`;
    this.#after = options.after ?? 0;
    this.#pollInterval = options.pollInterval ?? 2_000;
    this.#patience = options.patience ?? 600_000;
    this.#timeout = options.timeout ?? Infinity;
    this.#signal = options.signal;
  }

  async *events(): AsyncGenerator<JobEvent, void, undefined> {
    while (!this.#hasEnded) {
      const before = this.#after;
      if (this.#canStream) {
        yield* this.#streamed();
      }
      if (!this.#hasEnded) {
        yield* this.#polled();
      }
      if (!this.#hasEnded && this.#after === before) {
        this.#hasEnded = isTerminal((await this.job()).status) && !(await this.#isBehind());
        if (!this.#hasEnded) {
          await this.#rest();
        }
      }
    }
  }

  /** The job as it is now. */
  async job(): Promise<JobDetail> {
    return await this.#patiently(async () => {
      const answer = await this.#connection.request("GET", this.#path, this.#once(this.#connection.timeout));
      return answer.document() as JobDetail;
    });
  }

  /** What the stream sends until it ends or breaks. */
  async *#streamed(): AsyncGenerator<JobEvent, void, undefined> {
    const headers = { accept: "text/event-stream", "last-event-id": String(this.#after) };
    const begun = now();
    let hasBegun = false;
    try {
      const answer = await this.#connection.open(`${this.#path}/events`, { headers, ...this.#once(OPENING) });
      try {
        this.#hasEnded = answer.status === 204;
        const parser = new EventStreamParser();
        for await (const bytes of answer.chunks(() => this.#within(hasBegun ? SILENCE : OPENING))) {
          hasBegun = true;
          for (const sent of parser.push(bytes)) {
            const event = eventOf(sent.data);
            if (event.seq > this.#after) {
              this.#note(event);
              yield event;
            }
            if (this.#hasEnded) {
              return;
            }
          }
        }
      } finally {
        answer.close();
      }
    } catch (error) {
      this.#signal?.throwIfAborted();
      if (error instanceof InfluencerAIError && !isPassing(error)) {
        throw error;
      }
      this.#canStream = hasBegun || now() - begun < 0.9 * OPENING;
    }
  }

  /** What has happened by now. */
  async *#polled(): AsyncGenerator<JobEvent, void, undefined> {
    let page: JobEvent[];
    do {
      page = await this.#patiently(() => this.#page());
      for (const event of page) {
        this.#note(event);
        yield event;
      }
    } while (page.length === PAGE && !this.#hasEnded);
  }

  async #page(): Promise<JobEvent[]> {
    const query = { after: this.#after, take: PAGE };
    const options = { query, ...this.#once(this.#connection.timeout) };
    return (await this.#connection.request("GET", `${this.#path}/events`, options)).items() as JobEvent[];
  }

  /** Whether the job's end came with events that were not asked for yet. */
  async #isBehind(): Promise<boolean> {
    return (await this.#patiently(() => this.#page())).length > 0;
  }

  /** The server's answer, when it is there again. */
  async #patiently<Found>(ask: () => Promise<Found>): Promise<Found> {
    const begun = now();
    while (true) {
      this.#check();
      try {
        return await ask();
      } catch (error) {
        if (!isPassing(error)) {
          throw error;
        }
        this.#check();
        if (now() - begun > this.#patience) {
          throw error;
        }
        await this.#rest(error instanceof TooManyError ? error.retryAfter : 0);
      }
    }
  }

  async #rest(atLeast = 0): Promise<void> {
    await sleep(this.#within(Math.max(this.#pollInterval, atLeast)), this.#signal);
    this.#check();
  }

  /** A request that is asked once, and not beyond the end of all waiting. */
  #once(timeout: number): { retries: number; timeout: number; signal: AbortSignal | undefined } {
    return { retries: 0, timeout: this.#within(timeout), signal: this.#signal };
  }

  #note(event: JobEvent): void {
    this.#after = event.seq;
    this.#hasEnded = event.type === "status" && isTerminal(event.data["status"]);
  }

  /** The span, or what is left of all if that is less. */
  #within(span: number): number {
    return Math.min(span, this.#begun + this.#timeout - now());
  }

  #check(): void {
    if (this.#within(1) <= 0) {
      throw new TimedOutError(`Job ${this.#id} has not ended within ${this.#timeout / 1_000} seconds.`, {
        remedy: "It goes on: wait for it again, or cancel it.",
      });
    }
  }
}

/** Whether a job of this status stays as it is. */
function isTerminal(status: unknown): boolean {
  return status === "completed" || status === "failed";
}

/** Whether it may be over when the server is asked again. */
function isPassing(error: unknown): boolean {
  return error instanceof UnreachableError || error instanceof StoreError || error instanceof TooManyError;
}

function eventOf(data: string): JobEvent {
  const found: unknown = JSON.parse(data);
  if (!isDocument(found) || !Number.isInteger(found["seq"]) || !isDocument(found["data"])) {
    throw new SyntaxError("This is no event.");
  }
  return found as JobEvent;
}
