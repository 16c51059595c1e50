/** Connection: requests to one server as one tenant, tried again where that is safe. */

import { Answer, type Document } from "./answers.js";
import { InfluencerAIError, UnreachableError, ValidationError } from "./errors.js";
import { Listing } from "./listing.js";
import { sleep, Watch } from "./time.js";

/** Milliseconds that a server may ask for until the next try; for more, its refusal is thrown. */
const LONGEST_WAIT = 120_000;
const FIRST_PAUSE = 200;
const REPEATABLE = new Set(["GET", "PUT", "DELETE"]);
const OUTAGES = new Set([502, 503, 504]);
/** What goes wrong before a request leaves this machine; browsers do not tell. */
const NEVER_SENT = new Set([
  "EAI_AGAIN",
  "ECONNREFUSED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "UND_ERR_CONNECT_TIMEOUT",
]);

export type Query = Record<string, boolean | number | string | readonly string[] | null | undefined>;

/** What a request has beside its method and path. */
export interface RequestOptions {
  query?: Query;
  /** Sent as JSON. */
  body?: unknown;
  form?: FormData;
  headers?: Record<string, string>;
  /** Whether a second time does no harm; so it is with GET, PUT and DELETE. */
  isRepeatable?: boolean;
  /** Tries after the first one. */
  retries?: number;
  /** A status that is returned as if it were a success. */
  accepted?: number;
  /** Milliseconds that the server may take. */
  timeout?: number;
  signal?: AbortSignal | undefined;
}

export interface ConnectionOptions {
  /** Without a slash at its end. */
  baseUrl: string;
  headers: Record<string, string>;
  retries: number;
  timeout: number;
  onWarning: (text: string) => unknown;
  fetch: typeof globalThis.fetch;
}

/** What every resource speaks through. */
export class Connection {
  readonly retries: number;
  readonly timeout: number;
  readonly #options: ConnectionOptions;

  constructor(options: ConnectionOptions) {
    this.retries = options.retries;
    this.timeout = options.timeout;
    this.#options = options;
  }

  /** The document of a GET. */
  async get<Noun>(path: string, query?: Query): Promise<Noun> {
    const answer = await this.request("GET", path, { query: query ?? {} });
    return answer.document() as Noun;
  }

  /**
   * What is made. A key tells the server that a second try is the same request: the one that is given, or one of its
   * own.
   */
  async make<Noun>(path: string, body: unknown, key: string | undefined): Promise<Noun> {
    const headers = { "idempotency-key": key ?? randomKey() };
    return this.#changed(await this.request("POST", path, { body, headers, isRepeatable: true }));
  }

  /** What is done, where a second time changes nothing more. */
  async ask<Noun>(path: string, options: RequestOptions = {}): Promise<Noun> {
    return this.#changed(await this.request("POST", path, { ...options, isRepeatable: true }));
  }

  /** The noun as it is after a change. */
  async patch<Noun>(path: string, body: unknown): Promise<Noun> {
    return this.#changed(await this.request("PATCH", path, { body }));
  }

  /** Delete; what an earlier try has deleted, of which the answer was lost, is not missing. */
  async delete(path: string): Promise<void> {
    const answer = await this.request("DELETE", path);
    if (answer.isSuccess) {
      this.#changed(answer);
    }
  }

  /** All nouns of a list; `key` is the field by which one is told from another. */
  list<Noun>(path: string, query: Query & { pageSize?: number }, key = "id"): Listing<Noun> {
    const { pageSize = 100, ...filters } = query;
    const fetch = async (skip: number, take: number) => {
      const answer = await this.request("GET", path, { query: { ...filters, skip, take } });
      return { items: answer.items() as Noun[], total: answer.total(), take, skip };
    };
    return new Listing<Noun>(fetch, { key: (item) => String((item as Document)[key]), pageSize });
  }

  /** The nouns under `data`. */
  async items<Noun>(path: string, query: Query = {}): Promise<Noun[]> {
    return (await this.request("GET", path, { query })).items() as Noun[];
  }

  /** The bytes of a file. */
  async blob(path: string): Promise<Blob> {
    const answer = await this.open(path);
    try {
      const parts: Uint8Array[] = [];
      for await (const bytes of answer.chunks(() => this.timeout)) {
        parts.push(bytes);
      }
      return new Blob(parts as BlobPart[], { type: answer.headers.get("content-type") ?? "" });
    } catch (error) {
      throw this.unreachable(error, answer.isSilent);
    } finally {
      answer.close();
    }
  }

  /**
   * The answer, where it is a success or has the accepted status.
   *
   * Tried again: what never left this machine, what the server refuses for now (429, Retry-After), and where a second
   * time does no harm also what may have arrived and what an outage ate. Throws `UnreachableError` where there is no
   * answer, and the server's refusal as its own class.
   */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<Answer> {
    return await this.#tried(method, path, options, async (response, watch, request) => {
      const answer = new Answer(request, response, await response.arrayBuffer());
      watch.stop();
      return answer;
    });
  }

  /** The answer to a GET before its body is read, to be closed; throws as `request`. */
  async open(path: string, options: RequestOptions = {}): Promise<OpenAnswer> {
    const found = await this.#tried("GET", path, options, async (response, watch, request) => {
      if (response.ok || response.status === options.accepted) {
        return new OpenAnswer(response, watch);
      }
      const answer = new Answer(request, response, await response.arrayBuffer());
      watch.stop();
      return answer;
    });
    return found as OpenAnswer;
  }

  /** That there is no answer, in words. */
  unreachable(error: unknown, isSilence: boolean): UnreachableError {
    const server = `The server at ${this.#options.baseUrl}`;
    if (isSilence) {
      return new UnreachableError(`${server} did not answer in time.`, { cause: error });
    }
    return new UnreachableError(`${server} cannot be reached: ${reasonOf(error)}.`, {
      cause: error,
      remedy: "Start one with `influencerai serve`, or name the address of another.",
    });
  }

  async #tried<Found extends Answer | OpenAnswer>(
    method: string,
    path: string,
    options: RequestOptions,
    read: (response: Response, watch: Watch, request: string) => Promise<Found>,
  ): Promise<Found> {
    const url = this.#url(path, options.query);
    const init = this.#init(method, options);
    const isRepeatable = options.isRepeatable ?? REPEATABLE.has(method);
    const retries = options.retries ?? this.retries;
    let mayHaveArrived = false;
    for (let number = 0; ; number++) {
      let pause = FIRST_PAUSE * 2 ** number;
      const watch = new Watch(options.timeout ?? this.timeout, options.signal);
      try {
        const response = await this.#options.fetch(url, { ...init, signal: watch.signal });
        const found = await read(response, watch, `${method} ${url}`);
        if (found instanceof OpenAnswer || found.isSuccess || found.status === options.accepted) {
          return found;
        }
        if (method === "DELETE" && mayHaveArrived && found.status === 404) {
          return found;
        }
        const asked = pauseAsked(found, pause, isRepeatable);
        if (number >= retries || asked === undefined) {
          throw found.error();
        }
        mayHaveArrived ||= OUTAGES.has(found.status);
        pause = asked;
      } catch (error) {
        watch.stop();
        options.signal?.throwIfAborted();
        if (error instanceof InfluencerAIError) {
          throw error;
        }
        const neverSent = !watch.hasFired && isNeverSent(error);
        if (number >= retries || !(isRepeatable || neverSent)) {
          throw this.unreachable(error, watch.hasFired);
        }
        mayHaveArrived ||= !neverSent;
      }
      await sleep(pause, options.signal);
    }
  }

  #url(path: string, query: Query = {}): string {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    const search = new URLSearchParams(
      given.flatMap(([name, value]) => [value].flat().map((item): [string, string] => [name, String(item)])),
    );
    return this.#options.baseUrl + path + (given.length > 0 ? `?${search}` : "");
  }

  #init(method: string, options: RequestOptions): RequestInit {
    // A redirect is no answer of ours; and what is asked twice may have changed.
    const init: RequestInit = { method, redirect: "manual", cache: "no-store" };
    const headers = new Headers({ accept: "application/json", ...this.#options.headers, ...options.headers });
    if (options.form !== undefined) {
      init.body = options.form;
    } else if (options.body !== undefined) {
      init.body = JSON.stringify(options.body);
      headers.set("content-type", "application/json");
    }
    return { ...init, headers };
  }

  /** The document without its warnings, which are told. */
  #changed<Noun>(answer: Answer): Noun {
    const { warnings, ...noun } = answer.document();
    for (const text of Array.isArray(warnings) ? warnings : []) {
      this.#options.onWarning(String(text));
    }
    return noun as Noun;
  }
}

/** An answer of which the body is on its way. */
export class OpenAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly #body: ReadableStream<Uint8Array> | null;
  readonly #watch: Watch;

  constructor(response: Response, watch: Watch) {
    this.status = response.status;
    this.headers = response.headers;
    this.#body = response.body;
    this.#watch = watch;
  }

  /** Whether it was too long a silence that cut it off. */
  get isSilent(): boolean {
    return this.#watch.hasFired;
  }

  /** The body as it comes; throws where nothing comes for so many milliseconds as `span` says then. */
  async *chunks(span: () => number): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = this.#body?.getReader();
    while (reader !== undefined) {
      this.#watch.expect(span());
      const { done, value } = await reader.read();
      this.#watch.rest(); // whoever takes the bytes may take their time
      if (done) {
        return;
      }
      yield value;
    }
  }

  /** Leave what has not come. */
  close(): void {
    this.#watch.abort();
  }
}

/** An id as one part of a path; throws a `ValidationError` where it could lead elsewhere. */
export function segment(id: string): string {
  if (/^\.*$/.test(id)) {
    throw new ValidationError(`'${id}' is no id.`);
  }
  return encodeURIComponent(id);
}

/** Milliseconds until the next try, or undefined where there should be none. */
function pauseAsked(answer: Answer, pause: number, isRepeatable: boolean): number | undefined {
  if (answer.status !== 429 && !(OUTAGES.has(answer.status) && isRepeatable)) {
    return undefined;
  }
  const asked = answer.retryAfter() ?? pause;
  return asked > LONGEST_WAIT ? undefined : asked;
}

function isNeverSent(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  const causes = cause instanceof AggregateError ? cause.errors : [cause]; // one of each address of a name
  return causes.every((found) => NEVER_SENT.has(codeOf(found)));
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  const found = codeOf(cause) || (cause instanceof Error ? cause.message : "");
  return found || (error instanceof Error ? error.message : String(error));
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}

/** Not `crypto.randomUUID`, which browsers have on secure pages only. */
function randomKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
