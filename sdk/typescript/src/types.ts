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
export type DatasetReport = Sent<Schemas["DatasetReport"]>;
export type DatasetQuery = Filters<"list_datasets"> & Paging;
export type ImageQuery = Filters<"list_images"> & Paging;
export type UploadAnswer = Sent<Schemas["UploadAnswer"]>;
export type SkippedFile = Sent<Schemas["SkippedFile"]>;
export type RenamedFile = Sent<Schemas["RenamedFile"]>;

export type LoraConfigDraft = Schemas["LoraConfigDraft"];
export type LoraConfigChange = Schemas["LoraConfigChange"];
export type TrainingOptions = Schemas["TrainingOptions"];
/** A stored configuration; its `meta` is what was sent. */
export type LoraConfig = Omit<Sent<Schemas["LoraConfigRecord"]>, "meta"> & { meta: TrainingOptions };
export type LoraConfigQuery = Filters<"list_lora_configs"> & Paging;

/** How far a running job is. */
export type JobProgress = Schemas["JobProgress"];
type Results = {
  pending: Schemas["RunningResult"];
  running: Schemas["RunningResult"];
  completed: Schemas["CompletedResult"];
  failed: Schemas["FailedResult"];
};
/** The fields of a result by name, of whatever status. */
type ResultField = Named<Schemas["RunningResult"]> | Named<Schemas["CompletedResult"]> | Named<Schemas["FailedResult"]>;
type Named<T> = keyof { [Name in keyof T as string extends Name ? never : Name]: T[Name] };
/** A result that is known to lack the fields of the others, so that each can be read before the status is. */
type ResultOf<Status extends keyof Results> = Results[Status] & {
  [Name in Exclude<ResultField, Named<Results[Status]>>]?: undefined;
};

export type RunningResult = ResultOf<"running">;
export type CompletedResult = ResultOf<"completed">;
export type FailedResult = ResultOf<"failed">;
/** The result of a job of whatever status. */
export type JobResult = RunningResult | CompletedResult | FailedResult;

/** A job, of which the status says which result it has; its `payload` is what was sent. */
type SentJob<Job> = Job extends { payload: infer Payload; result?: infer Result; status: keyof Results }
  ? Sent<Omit<Job, "payload" | "result">> & {
      payload: Payload;
      result: ResultOf<Job["status"]> | Extract<Result, null>;
    }
  : never;

export type JobDraft = Schemas["JobDraft"];
export type JobChange = Schemas["JobChange"];
export type Job = SentJob<Schemas["Job"]>;
export type JobDetail = SentJob<Schemas["JobDetail"]>;
export type JobStatus = Job["status"];
export type JobQuery = Omit<Filters<"list_jobs">, "metadata"> &
  Paging & {
    /** Only jobs whose metadata has all of these. */
    metadata?: Record<string, string>;
  };
export type JobSeries = Sent<Schemas["JobSeries"]>;
export type JobEvent = Sent<Schemas["JobEvent"]>;
export type JobMetric = Sent<Schemas["JobMetric"]>;
export type JobArtifact = Sent<Schemas["JobArtifact"]>;
export type Preflight = Sent<Schemas["Preflight"]>;
export type SeriesQuery = NonNullable<operations["get_job_series"]["parameters"]["query"]>;

/** A job that runs, with its progress. */
export type RunningJob = Extract<JobDetail, { status: "running" }> & {
  result: { progress: JobProgress & { currentEpoch: number; totalEpochs: number } };
};

/** A job that is completed, with its result. */
export type CompletedJob = Extract<JobDetail, { status: "completed" }> & { result: CompletedResult };

export type Cluster = Sent<Schemas["Cluster"]>;
export type Readiness = Sent<Schemas["Readiness"]>;
export type BaseModelEntry = Sent<Schemas["BaseModelEntry"]>;
export type Preset = Omit<Sent<Schemas["Preset"]>, "meta"> & { meta: TrainingOptions };
export type Usage = Sent<Schemas["Usage"]>;
