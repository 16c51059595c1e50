/** What a browser's bundle of the SDK does: all but files on disk. Run with `--conditions=browser`. */

import assert from "node:assert/strict";

import { InfluencerAIClient } from "@influencerai/sdk";

const client = new InfluencerAIClient({ baseUrl: process.argv[2]!, tenantId: "browser", onWarning: () => {} });
const dataset = await client.datasets.create({ kind: "lora-training", path: "data/browser" });
await assert.rejects(client.datasets.upload(dataset.id, "pictures"), /A browser reads no folder/);
const config = await client.loraConfigs.create({ name: "A", modelName: "sd15" });
const payload = { datasetId: dataset.id, loraConfigId: config.id };
const job = await client.jobs.create({ type: "lora-training", payload });
await assert.rejects(client.jobs.download(job.id, { to: "folder" }), /A browser writes into no folder/);
assert.deepEqual(
  (await client.datasets.list()).map((item) => item.id),
  [dataset.id],
);
console.log("It needs no disk.");
