/** The nouns of the API, by the names that `schema.ts`, which is generated, has for them. */

import type { components, operations } from "./schema.js";

type Schemas = components["schemas"];

/** What a server sends has every field, null where there is nothing. */
type Sent<T> = T extends readonly (infer Item)[]
  ? Sent<Item>[]
  : T extends object
    ? { [Name in keyof T]-?: Sent<T[Name]> }
    : T;

/** The filters and the order of a list; which part of it is fetched when is the listing's own affair. */
type Filters<Operation extends keyof operations> = Omit<
  NonNullable<operations[Operation]["parameters"]["query"]>,
  "skip" | "take"
>;

/** How a list is fetched. */
export type Paging = {
  /** Items that one request fetches, 1 to 100; by default 100. */
  pageSize?: number;
};

export type DatasetDraft = Schemas["DatasetDraft"];
export type Dataset = Sent<Schemas["Dataset"]>;
export type DatasetStatus = Dataset["status"];
export type DatasetImage = Sent<Schemas["DatasetImage"]>;
export type DatasetReport = Sent<Schemas["ImageSetReport"]>;
export type DatasetQuery = Filters<"list_datasets"> & Paging;
export type ImageQuery = Filters<"list_images"> & Paging;
export type UploadAnswer = Sent<Schemas["UploadAnswer"]>;
export type SkippedFile = Sent<Schemas["SkippedFile"]>;
export type RenamedFile = Sent<Schemas["RenamedFile"]>;

export type LoraConfigDraft = Schemas["LoraConfigDraft"];
export type LoraConfigChange = Schemas["LoraConfigChange"];
export type LoraConfig = Sent<Schemas["LoraConfigRecord"]>;
export type LoraConfigQuery = Filters<"list_lora_configs"> & Paging;

/** How far a running job is. */
export interface JobProgress {
  currentEpoch: number;
  totalEpochs: number;
  loss?: number;
  /** Such as "45 minutes". */
  estimatedTimeRemaining?: string;
  estimatedSecondsRemaining?: number;
  step?: number;
  totalSteps?: number;
}

/** What a job has to show: its progress while it runs, its files when it is completed, its error when it failed. */
export interface JobResult {
  progress?: JobProgress;
  loraPath?: string;
  checkpoints?: string[];
  finalLoss?: number;
  trainingTimeMinutes?: number;
  error?: string;
  epoch?: number;
  partialCheckpoints?: string[];
  cancelled?: boolean;
  [more: string]: unknown;
}

export type JobDraft = Schemas["JobDraft"];
export type JobChange = Schemas["JobChange"];
export type Job = Omit<Sent<Schemas["Job"]>, "result"> & { result: JobResult | null };
export type JobDetail = Omit<Sent<Schemas["JobDetail"]>, "result"> & { result: JobResult | null };
export type JobStatus = Job["status"];
export type JobQuery = Filters<"list_jobs"> & Paging;
export type JobSeries = Sent<Schemas["JobSeries"]>;
export type JobEvent = Sent<Schemas["JobEvent"]>;
export type JobMetric = Sent<Schemas["JobMetric"]>;
export type JobArtifact = Sent<Schemas["JobArtifact"]>;
export type Preflight = Sent<Schemas["Preflight"]>;
export type SeriesQuery = NonNullable<operations["get_job_series"]["parameters"]["query"]>;

/** A job that runs, with its progress. */
export type RunningJob = Omit<JobDetail, "result" | "status"> & {
  status: "running";
  result: JobResult & { progress: JobProgress };
};

/** A job that is completed, with its result. */
export type CompletedJob = Omit<JobDetail, "result" | "status"> & { status: "completed"; result: JobResult };

export type Cluster = Sent<Schemas["Cluster"]>;
export type Readiness = Sent<Schemas["Readiness"]>;
