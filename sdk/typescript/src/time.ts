/** Time: pauses, and limits to how long nothing may come. All spans are milliseconds. */

/** What `setTimeout` can count; of a longer span it makes none at all. */
const LONGEST_TIMER = 2 ** 31 - 1;

/** A clock that nobody sets. */
export function now(): number {
  return performance.now();
}

/** Wait; rejects with the signal's reason when that is aborted. */
export async function sleep(span: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(end, Math.min(Math.max(span, 0), LONGEST_TIMER));
    signal?.addEventListener("abort", end);
    function end(): void {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      if (signal?.aborted) {
        reject(signal.reason);
      } else {
        resolve();
      }
    }
  });
}

/** Aborts its signal when nothing was heard for a while, or when an outer signal is aborted. */
export class Watch {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #abort = (): void => this.abort();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #hasFired = false;

  constructor(span: number, outer?: AbortSignal) {
    this.#outer = outer;
    outer?.throwIfAborted();
    outer?.addEventListener("abort", this.#abort);
    this.expect(span);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether it was the silence that ended it. */
  get hasFired(): boolean {
    return this.#hasFired;
  }

  /** From now on something must come within `span`. */
  expect(span: number): void {
    this.rest();
    this.#timer = setTimeout(() => {
      this.#hasFired = true;
      this.abort();
    }, Math.min(Math.max(span, 0), LONGEST_TIMER));
  }

  /** Something has come, and nothing more is waited for until it is said again. */
  rest(): void {
    clearTimeout(this.#timer);
  }

  /** Everything has come. */
  stop(): void {
    this.rest();
    this.#outer?.removeEventListener("abort", this.#abort);
  }

  /** Nothing more is wanted: what is on its way is cut off. */
  abort(): void {
    this.stop();
    this.#controller.abort();
  }
}
