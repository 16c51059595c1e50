/** Answers: documents out of what a server sends, and errors out of what it refuses. */

import {
  AuthenticationError,
  ConflictError,
  type ErrorDetails,
  InfluencerAIError,
  NotFoundError,
  PermissionDeniedError,
  RefusedError,
  StoreError,
  TooManyError,
  UnreachableError,
  ValidationError,
} from "./errors.js";

const BY_STATUS: Record<number, typeof InfluencerAIError> = {
  400: RefusedError,
  401: AuthenticationError,
  403: PermissionDeniedError,
  404: NotFoundError,
  409: ConflictError,
  413: RefusedError,
  429: TooManyError,
  502: UnreachableError,
  503: StoreError,
  504: UnreachableError,
};

/** An object of JSON. */
export type Document = Record<string, unknown>;

/** What a server has answered, whole. */
export class Answer {
  readonly request: string;
  readonly status: number;
  readonly headers: Headers;
  readonly body: ArrayBuffer;

  constructor(request: string, response: Response, body: ArrayBuffer) {
    this.request = request;
    this.status = response.status;
    this.headers = response.headers;
    this.body = body;
  }

  get isSuccess(): boolean {
    return this.status >= 200 && this.status < 300;
  }

  /** The JSON object of the body; throws an `InfluencerAIError` where it is none. */
  document(): Document {
    const found = parsed(this);
    if (!isDocument(found)) {
      throw notUnderstood(this, "it is no object");
    }
    return found;
  }

  /** The documents of a list, which stand bare or under `data`; throws an `InfluencerAIError` where there is none. */
  items(): Document[] {
    const found = parsed(this);
    const items = isDocument(found) ? found["data"] : found;
    if (!Array.isArray(items) || !items.every(isDocument)) {
      throw notUnderstood(this, "it is no list");
    }
    return items;
  }

  /** How many items the whole list has; throws an `InfluencerAIError` where that is not said. */
  total(): number {
    const found = this.headers.get("x-total-count") ?? "";
    if (!/^\d+$/.test(found)) {
      throw notUnderstood(this, "it does not say how many items there are");
    }
    return Number(found);
  }

  /** Milliseconds after which the server wants to be asked again; undefined where it does not say. */
  retryAfter(): number | undefined {
    const found = this.headers.get("retry-after") ?? "";
    return /^\d+(\.\d+)?$/.test(found) ? Number(found) * 1_000 : undefined;
  }

  /** The error that the answer is. */
  error(): InfluencerAIError {
    const body = errorBody(this);
    const fields = isDocument(body["errors"]) ? body["errors"]["fieldErrors"] : undefined;
    const details: ErrorDetails = {
      statusCode: this.status,
      errors: isDocument(fields) ? { fieldErrors: fields as Record<string, string[]> } : undefined,
      code: text(body["code"]),
      remedy: text(body["remedy"]),
      existingId: text(body["id"]),
      retryAfter: this.retryAfter(),
    };
    const hasFields = this.status === 400 && details.errors !== undefined;
    const Kind = hasFields ? ValidationError : (BY_STATUS[this.status] ?? InfluencerAIError);
    return new Kind(text(body["message"]) ?? `${this.request} was answered with ${this.status}.`, details);
  }
}

/** Whether a value is an object of JSON. */
export function isDocument(value: unknown): value is Document {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parsed(answer: Answer): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(answer.body));
  } catch {
    throw notUnderstood(answer, "it is no JSON");
  }
}

function errorBody(answer: Answer): Document {
  try {
    return answer.document();
  } catch {
    return {};
  }
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function notUnderstood(answer: Answer, what: string): InfluencerAIError {
  return new InfluencerAIError(`The answer to ${answer.request} is not understood: ${what}.`, {
    statusCode: answer.status,
    remedy: "Check the address of the server, and that client and server are of the same version.",
  });
}
