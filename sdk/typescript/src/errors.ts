/** The one error tree: what a server refuses, what it does not answer, and how a job ended that was waited for. */

import type { FailedResult } from "./types.js";

/** What is wrong with which field, by its name in JSON; nested ones as `payload.datasetId`. */
export interface FieldErrors {
  fieldErrors: Record<string, string[]>;
}

/** What an error knows beside its message. */
export interface ErrorDetails {
  /** The HTTP status, where a server answered with the error. */
  statusCode?: number | undefined;
  /** What is wrong with which field. */
  errors?: FieldErrors | undefined;
  /** Stable name of the kind of error, such as `validation`, `model` or `out_of_memory`. */
  code?: string | undefined;
  /** What to do about it. */
  remedy?: string | undefined;
  /** The id of what a conflict is with. */
  existingId?: string | undefined;
  /** Milliseconds until it is worth trying again. */
  retryAfter?: number | undefined;
  /** The result of a failed job. */
  failure?: FailedResult | undefined;
  /** The error below. */
  cause?: unknown;
}

/** An error; the message is the server's where it answered. */
export class InfluencerAIError extends Error {
  static {
    this.prototype.name = "InfluencerAIError";
  }

  readonly statusCode: number | undefined;
  readonly errors: FieldErrors | undefined;
  readonly code: string | undefined;
  readonly remedy: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.statusCode = details.statusCode;
    this.errors = details.errors;
    this.code = details.code;
    this.remedy = details.remedy;
  }
}

/** A field has an invalid value; `errors.fieldErrors` names it. */
export class ValidationError extends InfluencerAIError {
  static {
    this.prototype.name = "ValidationError";
  }
}

/** The request is not possible in the current state. */
export class RefusedError extends InfluencerAIError {
  static {
    this.prototype.name = "RefusedError";
  }
}

/** The request has no valid credential. */
export class AuthenticationError extends InfluencerAIError {
  static {
    this.prototype.name = "AuthenticationError";
  }
}

/** The credential does not permit this request. */
export class PermissionDeniedError extends InfluencerAIError {
  static {
    this.prototype.name = "PermissionDeniedError";
  }
}

/** The requested object does not exist, or belongs to another tenant. */
export class NotFoundError extends InfluencerAIError {
  static {
    this.prototype.name = "NotFoundError";
  }
}

/** The request conflicts with an existing object. */
export class ConflictError extends InfluencerAIError {
  static {
    this.prototype.name = "ConflictError";
  }

  /** What it collides with, where there is one. */
  readonly existingId: string | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.existingId = details.existingId;
  }
}

/** Too many requests, or too many active jobs. */
export class TooManyError extends InfluencerAIError {
  static {
    this.prototype.name = "TooManyError";
  }

  /** Milliseconds until it is worth trying again. */
  readonly retryAfter: number;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.retryAfter = details.retryAfter ?? 5_000;
  }
}

/** The server answers, but not its database. */
export class StoreError extends InfluencerAIError {
  static {
    this.prototype.name = "StoreError";
  }
}

/** The server does not answer. */
export class UnreachableError extends InfluencerAIError {
  static {
    this.prototype.name = "UnreachableError";
  }
}

/** The expected event did not happen in time. */
export class TimedOutError extends InfluencerAIError {
  static {
    this.prototype.name = "TimedOutError";
  }
}

/** The job that was waited for failed; the message is its error. */
export class TrainingError extends InfluencerAIError {
  static {
    this.prototype.name = "TrainingError";
  }

  /** The job's result. */
  readonly failure: FailedResult;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details);
    this.failure = details.failure ?? {};
  }
}

/** The job that was waited for was cancelled. */
export class StoppedError extends TrainingError {
  static {
    this.prototype.name = "StoppedError";
  }
}
