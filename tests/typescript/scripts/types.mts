/** Only compiled: the status tells the result, options are typed, and the SDK's nouns are those of the document. */

import type { components, Job, JobDraft, LoraConfigDraft } from "@influencerai/sdk";

export function shown(job: Job): string | undefined {
  switch (job.status) {
    case "completed":
      return job.result?.loraPath;
    case "failed":
      return job.result?.code;
    default:
      return job.result?.progress?.estimatedTimeRemaining;
  }
}

export function loss(job: components["schemas"]["Job"]): number | null | undefined {
  return job.status === "completed" ? job.result?.finalLoss : undefined;
}

export const typed: LoraConfigDraft = { name: "x", modelName: "sd15", meta: { optimizer: "AdamW", own: [1] } };
// @ts-expect-error: no optimizer of that name
export const optimizer: LoraConfigDraft = { name: "x", modelName: "sd15", meta: { optimizer: "adamw" } };
// @ts-expect-error: a number where texts belong
export const prompts: LoraConfigDraft = { name: "x", modelName: "sd15", meta: { samplePrompts: 3 } };
export const inline: JobDraft = {
  type: "lora-training",
  payload: { datasetId: "x", loraConfig: typed },
  metadata: { orderId: "A-17" },
};
// @ts-expect-error: metadata are texts
export const order: JobDraft = { type: "lora-training", payload: { datasetId: "x" }, metadata: { orderId: 17 } };
export function early(job: Job): [number | undefined, string | undefined] {
  return [job.result?.progress?.currentEpoch, job.result?.error];
}
