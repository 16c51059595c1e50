/** What stands in the place of `disk.ts` in a browser. */

import { InfluencerAIError } from "./errors.js";

export async function portionsOf(): Promise<never> {
  const remedy = "Give the files themselves, as `File` objects.";
  throw new InfluencerAIError("A browser reads no folder.", { remedy });
}

export async function download(): Promise<never> {
  const remedy = "Take `artifact`, which returns a `Blob`.";
  throw new InfluencerAIError("A browser writes into no folder.", { remedy });
}
