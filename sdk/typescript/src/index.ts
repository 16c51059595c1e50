/** The InfluencerAI API from TypeScript. */

export { type ClientOptions, InfluencerAIClient } from "./client.js";
export type { Datasets, UploadOptions } from "./datasets.js";
export {
  AuthenticationError,
  ConflictError,
  type ErrorDetails,
  type FieldErrors,
  InfluencerAIError,
  NotFoundError,
  PermissionDeniedError,
  RefusedError,
  StoppedError,
  StoreError,
  TimedOutError,
  TooManyError,
  TrainingError,
  UnreachableError,
  ValidationError,
} from "./errors.js";
export type { FollowOptions } from "./events.js";
export type { DownloadOptions, Jobs, WaitOptions } from "./jobs.js";
export type { Listing, Page } from "./listing.js";
export type { LoraConfigs, MakeOptions } from "./lora-configs.js";
export type { components, operations, paths } from "./schema.js";
export type * from "./types.js";
