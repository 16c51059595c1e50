/** Every method of the SDK, once and typed, against the server that the argument names; pictures lie in `pictures`. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import {
  AuthenticationError,
  ConflictError,
  InfluencerAIClient,
  InfluencerAIError,
  type Job,
  type JobEvent,
  type LoraConfig,
  NotFoundError,
  RefusedError,
  type RunningJob,
  StoppedError,
  TimedOutError,
  TrainingError,
  ValidationError,
} from "@influencerai/sdk";

const baseUrl = process.argv[2]!;
const warnings: string[] = [];
const client = new InfluencerAIClient({ baseUrl, tenantId: "methods", onWarning: (text) => warnings.push(text) });

async function thrown<Kind extends Error>(
  Kind: new (...given: never[]) => Kind,
  asked: PromiseLike<unknown>,
): Promise<Kind> {
  try {
    await asked;
  } catch (error) {
    assert(error instanceof Kind, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: `${Kind.name} was expected` });
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = [];
  for await (const item of items) {
    found.push(item);
  }
  return found;
}

async function datasets(): Promise<void> {
  const meta = { triggerWord: "ohwx", deep: [1, null] };
  const made = await client.datasets.create({ kind: "lora-training", path: "data/höhle", meta });
  assert.deepEqual([made.status, made.meta, made.tenantId], ["pending", meta, "methods"]);
  assert(!("warnings" in made));
  assert.match(warnings.pop() ?? "", /There is no folder/);

  const answer = await client.datasets.upload(made.id, "pictures");
  assert.deepEqual(answer.added.toSorted(), ["b.png", "inner/c.png", "ü 1.png", "ü 1.txt"]);
  const skipped = ["README.txt", "broken/broken.png", "empty/notes.txt", ".hidden.png", "nowhere.png"];
  assert.deepEqual(answer.skipped.map((file) => file.name).toSorted(), skipped.toSorted());
  assert(answer.skipped.every((file) => file.reason && file.remedy));
  assert.deepEqual([answer.captions, answer.status], [1, "ready"]);
  assert.equal((await client.datasets.upload(made.id, "pictures")).unchanged.length, 4);
  const file = new File([await readFile("pictures/inner/c.png")], "c.png", { type: "image/png" });
  assert.deepEqual((await client.datasets.upload(made.id, [file])).added, ["c.png"]);
  const empty = await thrown(ValidationError, client.datasets.upload(made.id, "pictures/empty"));
  assert.match(empty.message, /There are no images in pictures\/empty/);
  await thrown(ValidationError, client.datasets.upload(made.id, "nowhere"));
  const broken = await thrown(ValidationError, client.datasets.upload(made.id, "pictures/broken"));
  assert.deepEqual(Object.keys(broken.errors?.fieldErrors ?? {}).toSorted(), ["files", "files.broken.png"]);
  assert.equal(broken.statusCode, 400);

  assert.equal((await client.datasets.get(made.id)).status, "ready");
  const images = await client.datasets.images(made.id, { pageSize: 1 });
  assert.deepEqual(
    images.map((image) => [image.path, image.caption]),
    [
      ["b.png", "ohwx"],
      ["c.png", "ohwx"],
      ["inner/c.png", "ohwx"],
      ["ü 1.png", "ohwx, läuft"],
    ],
  );
  assert.equal((await client.datasets.writeCaption(made.id, "ü 1.png", "ohwx, winkt")).caption, "ohwx, winkt");
  const thumbnail = await client.datasets.thumbnail(made.id, "ü 1.png");
  assert.equal(thumbnail.type, "image/webp");
  assert.equal((await thumbnail.text()).slice(8, 12), "WEBP");
  await thrown(ValidationError, client.datasets.thumbnail(made.id, "../b.png"));
  assert.equal((await client.datasets.report(made.id, { refresh: true })).imageCount, 4);
  assert.deepEqual((await client.datasets.update(made.id, { meta: { a: 1 } })).meta, { a: 1 });
  assert.equal((await client.datasets.setStatus(made.id, "failed")).status, "failed");
  assert.deepEqual(
    (await client.datasets.list({ status: "failed", kind: "lora-training" })).map((item) => item.id),
    [made.id],
  );
  await client.datasets.delete(made.id);
  const missing = await thrown(NotFoundError, client.datasets.get(made.id));
  assert.deepEqual([missing.message, missing.statusCode], [`Dataset ${made.id} not found`, 404]);
}

async function configs(): Promise<LoraConfig> {
  assert.equal(await client.loraConfigs.default(), null);
  const draft = { name: "Portrait", modelName: "sd15", epochs: 4, networkDim: 8, isDefault: true, meta: { seed: 7 } };
  const first = await client.loraConfigs.create(draft);
  assert.deepEqual([first.meta, first.description, first.networkAlpha], [{ seed: 7 }, null, 16]);
  assert(warnings.some((text) => text.includes("networkAlpha 16 exceeds networkDim 8")));
  const second = await client.loraConfigs.create({ name: "Second", modelName: "sd15", networkAlpha: 8 });
  assert.deepEqual(await client.loraConfigs.default(), await client.loraConfigs.get(first.id));
  assert((await client.loraConfigs.setDefault(second.id)).isDefault);
  assert.equal((await client.loraConfigs.default())?.id, second.id);
  const taken = await thrown(ConflictError, client.loraConfigs.create({ name: "Second", modelName: "sdxl" }));
  assert.deepEqual([taken.existingId, taken.statusCode], [second.id, 409]);
  const misspelt = { name: "x", modelName: "sd15", learningrate: 1e-4, epochs: 0 };
  const wrong = await thrown(ValidationError, client.loraConfigs.create(misspelt));
  assert.deepEqual(Object.keys(wrong.errors!.fieldErrors).toSorted(), ["epochs", "learningrate"]);
  const changed = await client.loraConfigs.update(second.id, { description: "A try", networkDim: 32 });
  assert.deepEqual([changed.description, changed.networkDim], ["A try", 32]);
  assert.equal((await client.loraConfigs.update(second.id, { description: null })).description, null);

  const listing = client.loraConfigs.list({ sortBy: "name", sortOrder: "asc", pageSize: 1 });
  assert.deepEqual(
    (await all(listing)).map((item) => item.name),
    ["Portrait", "Second"],
  );
  assert.equal(await listing.total(), 2);
  const page = await listing.page({ take: 1, skip: 1 });
  assert.deepEqual([page.items.map((item) => item.id), page.total, page.skip], [[second.id], 2, 1]);
  warnings.length = 0;
  await client.loraConfigs.delete(second.id);
  assert.deepEqual(warnings, ["Deleted the default LoRA configuration. Consider setting a new default."]);
  return first;
}

async function jobs(config: LoraConfig): Promise<void> {
  const dataset = await client.datasets.create({ kind: "lora-training", path: "data/me" });
  const draft = { type: "lora-training", payload: { datasetId: dataset.id, loraConfigId: config.id } } as const;
  const checked = await client.jobs.dryRun(draft);
  assert.equal(checked.ok, false);
  assert.equal(await client.jobs.list().total(), 0);
  const first = await client.jobs.create(draft, { idempotencyKey: "once" });
  assert.equal((await client.jobs.create(draft, { idempotencyKey: "once" })).id, first.id);
  const detail = await client.jobs.get(first.id);
  assert.deepEqual([detail.status, detail.result, detail.training?.config["name"]], ["pending", null, "Portrait"]);
  assert.match((await thrown(RefusedError, client.datasets.delete(dataset.id))).message, /1 active job/);
  await thrown(TimedOutError, client.jobs.waitForCompletion(first.id, { timeout: 300, pollInterval: 100 }));

  const seen: RunningJob[] = [];
  const followed: JobEvent[] = [];
  const waiting = client.jobs.waitForCompletion(first.id, { onProgress: (job) => seen.push(job) });
  const following = (async () => {
    for await (const event of client.jobs.follow(first.id)) {
      followed.push(event);
    }
  })();
  assert.deepEqual((await client.jobs.update(first.id, { status: "running" })).result?.progress?.currentEpoch, 0);
  await thrown(ConflictError, client.jobs.delete(first.id));
  for (const currentEpoch of [1, 2]) {
    await client.jobs.update(first.id, { result: { progress: { currentEpoch, loss: 0.5 } } });
  }
  await thrown(ValidationError, client.jobs.update(first.id, { result: { progress: "no figure" } }));
  await client.jobs.update(first.id, { result: { stage: "cleaning up" } });
  await client.jobs.update(first.id, { status: "completed", result: { loraPath: "a" }, costTok: 3 });
  const ended = await waiting;
  await following;
  assert.deepEqual([ended.status, ended.result.loraPath, ended.costTok], ["completed", "a", 3]);
  assert.deepEqual(
    seen.map((job) => [job.status, job.result.progress.currentEpoch, job.result.progress.totalEpochs, job.id]),
    [0, 1, 2].map((epoch) => ["running", epoch, 4, first.id]),
  );
  assert(seen.every((job) => job.startedAt !== null && job.finishedAt === null));
  assert.deepEqual(await all(client.jobs.events(first.id)), followed);
  assert.deepEqual(await all(client.jobs.follow(first.id, { after: 3 })), followed.slice(3));
  assert.deepEqual(
    followed.map((event) => event.seq),
    followed.map((_, index) => index + 1),
  );
  assert.deepEqual(await client.jobs.metrics(first.id, { points: 10 }), []);
  assert.deepEqual(await client.jobs.artifacts(first.id), []);
  assert.deepEqual(await client.jobs.download(first.id, { to: "nothing" }), []);
  await thrown(NotFoundError, client.jobs.artifact(first.id, "a.safetensors"));
  await thrown(NotFoundError, client.jobs.thumbnail(first.id, "a.png"));

  await failures(await client.jobs.create(draft));
  assert.equal((await client.jobs.series({ window: "day", buckets: 2 })).data.at(-1)?.completed, 1);
  await client.jobs.delete(first.id);
  await thrown(NotFoundError, client.jobs.waitForCompletion(first.id));
}

async function failures(job: Job): Promise<void> {
  const result = { error: "The loss is not a number.", epoch: 3, partialCheckpoints: ["a-epoch-2.safetensors"] };
  await client.jobs.update(job.id, { status: "failed", result });
  const failed = await thrown(TrainingError, client.jobs.waitForCompletion(job.id));
  assert.deepEqual([failed.name, failed.message, failed.failure], ["TrainingError", result.error, result]);
  const again = await client.jobs.retry(job.id);
  assert.equal(again.retryOf, job.id);
  assert.equal((await client.jobs.cancel(again.id)).status, "failed");
  const stopped = await thrown(StoppedError, client.jobs.waitForCompletion(again.id));
  assert.match(String(stopped.stack), /^StoppedError: Cancelled/);
  assert.deepEqual(
    (await client.jobs.list({ status: "cancelled" })).map((item) => item.id),
    [again.id],
  );
}

async function others(): Promise<void> {
  assert(Array.isArray((await client.cluster()).nodes));
  assert.equal((await client.readiness()).status, "ready");
  const available = (await client.models()).filter((model) => model.available).map((model) => model.name);
  assert.deepEqual(available, ["influencerai/tiny-avatars"]);
  assert.equal((await client.presets())[1]?.meta.optimizer, "AdamW8bit");
  const nobody = new InfluencerAIClient({ baseUrl: `${baseUrl}/` });
  assert.equal((await thrown(AuthenticationError, nobody.jobs.list())).statusCode, 401);
  for (const id of ["", ".", ".."]) {
    await thrown(ValidationError, client.jobs.delete(id));
  }
  await thrown(NotFoundError, client.jobs.get("../datasets"));
  for (const options of [{ tenantId: "a\r\nx: b" }, { apiKey: "ä" }, { apiKey: "" }, { baseUrl: "server" }]) {
    assert.throws(() => new InfluencerAIClient(options), ValidationError);
  }
  for (const baseUrl of ["http://me:SECRET@server", "ftp://me:SECRET@server", "me:SECRET@server", "//me:SECRET@a"]) {
    const shown = (error: ValidationError) => `${error} ${JSON.stringify(error)}`;
    const isSilent = (error: unknown) => error instanceof ValidationError && !shown(error).includes("SECRET");
    assert.throws(() => new InfluencerAIClient({ baseUrl }), isSilent);
  }
  const controller = new AbortController();
  const dataset = await client.datasets.create({ kind: "lora-training", path: "data/me" });
  const config = await client.loraConfigs.create({ name: "Aborted", modelName: "sd15" });
  const payload = { datasetId: dataset.id, loraConfigId: config.id };
  const job = await client.jobs.create({ type: "lora-training", payload });
  setTimeout(() => controller.abort(new Error("enough")), 300);
  const waiting = client.jobs.waitForCompletion(job.id, { signal: controller.signal });
  assert.equal((await thrown(Error, waiting)).message, "enough");
  assert(!((await waiting.catch((error: unknown) => error)) instanceof InfluencerAIError));
}

/** What the compiler refuses; it is never run. */
export function refused(): void {
  // @ts-expect-error there is no such status
  client.jobs.list({ status: "done" });
  // @ts-expect-error a configuration has a name
  void client.loraConfigs.create({ modelName: "sd15" });
  // @ts-expect-error a job that has not ended may have no result
  void client.jobs.get("a").then((job) => job.result.loraPath);
  // @ts-expect-error pages are fetched by the listing
  client.datasets.list({ take: 3 });
}

await datasets();
await jobs(await configs());
await others();
console.log("Every method has done what it should.");
