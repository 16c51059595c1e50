/** A client that does what the lines of its standard input say, and tells of it line by line. */

import { createInterface } from "node:readline";

import { InfluencerAIClient } from "@influencerai/sdk";

const PARTS = ["name", "message", "statusCode", "errors", "remedy", "existingId", "retryAfter", "failure"];

function say(told: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(told)}\n`);
}

/** What JSON can carry of it: bytes are Base64, what is iterated is an array. */
async function plain(value: unknown): Promise<unknown> {
  const found = await value;
  if (found instanceof Blob) {
    return Buffer.from(await found.arrayBuffer()).toString("base64");
  }
  if (typeof found !== "object" || found === null || !(Symbol.asyncIterator in found)) {
    return found ?? null;
  }
  const items = [];
  for await (const item of found as AsyncIterable<unknown>) {
    say({ heard: item });
    items.push(item);
  }
  return items;
}

function listening(argument: unknown): unknown {
  const hears = typeof argument === "object" && argument !== null && "onProgress" in argument;
  return hears ? { ...argument, onProgress: (job: unknown) => say({ heard: job }) } : argument;
}

const options = JSON.parse(process.argv[2] ?? "{}");
const client = new InfluencerAIClient({ ...options, onWarning: (text) => say({ warning: text }) });
for await (const line of createInterface({ input: process.stdin })) {
  const { method, arguments: given } = JSON.parse(line);
  const [resource, name] = String(method).split(".");
  try {
    const object = name === undefined ? client : (client as any)[resource!];
    say({ returned: await plain(object[name ?? resource!](...given.map(listening))) });
  } catch (error) {
    say({ thrown: Object.fromEntries(PARTS.map((part) => [part, (error as any)[part]])) });
  }
}
