/** The client: one server, one tenant, and its datasets, configurations and jobs. */

import { Connection } from "./connection.js";
import { Datasets } from "./datasets.js";
import { ValidationError } from "./errors.js";
import { Jobs } from "./jobs.js";
import { LoraConfigs } from "./lora-configs.js";
import type { BaseModelEntry, Cluster, Preset, Readiness, Usage } from "./types.js";

const DEFAULT_URL = "http://127.0.0.1:3001";
const DEFAULT_TIMEOUT = 30_000;
const DEFAULT_RETRIES = 3;

/** Which server, as whom, and how patiently. */
export interface ClientOptions {
  /** Address of the server; by default that of `influencerai serve` on this machine. */
  baseUrl?: string;
  /** Whose data it is; enough in development, where the server believes it. */
  tenantId?: string;
  /** An API key or a JWT, which a server in production wants. */
  apiKey?: string;
  /** Milliseconds that the server may take for one answer; by default 30 seconds. */
  timeout?: number;
  /** Tries after the first one, where a second one is safe; by default 3. */
  retries?: number;
  /** Called with each warning that an answer carries; by default `console.warn`. */
  onWarning?: (text: string) => unknown;
  /** What requests go through, where they need a proxy or certificates of their own; by default the platform's. */
  fetch?: typeof globalThis.fetch;
}

/** A client of one server. Throws a `ValidationError` where address, tenant or key could not be sent. */
export class InfluencerAIClient {
  readonly datasets: Datasets;
  readonly loraConfigs: LoraConfigs;
  readonly jobs: Jobs;
  readonly #connection: Connection;

  constructor(options: ClientOptions = {}) {
    this.#connection = new Connection({
      baseUrl: checkedUrl(options.baseUrl ?? DEFAULT_URL),
      headers: {
        ...header("tenantId", options.tenantId, (value) => ({ "x-tenant-id": value })),
        ...header("apiKey", options.apiKey, (value) => ({ authorization: `Bearer ${value}` })),
      },
      timeout: options.timeout ?? DEFAULT_TIMEOUT,
      retries: options.retries ?? DEFAULT_RETRIES,
      onWarning: options.onWarning ?? ((text) => console.warn(text)),
      fetch: options.fetch ?? ((...request) => globalThis.fetch(...request)),
    });
    this.datasets = new Datasets(this.#connection);
    this.loraConfigs = new LoraConfigs(this.#connection);
    this.jobs = new Jobs(this.#connection);
  }

  /** The machines that train, what is free of them, and which of your jobs run where. */
  async cluster(): Promise<Cluster> {
    return await this.#connection.get("/cluster");
  }

  /** The base models that configurations can name, and whether the server has them. */
  async models(): Promise<BaseModelEntry[]> {
    return await this.#connection.items("/models");
  }

  /** Values for a configuration's fields to start from. */
  async presets(): Promise<Preset[]> {
    return await this.#connection.items("/presets");
  }

  /** What the tenant has, has used and may use. */
  async usage(): Promise<Usage> {
    return await this.#connection.get("/usage");
  }

  /** Whether the server can serve, and what it stands on; what is not ready is no error. */
  async readiness(): Promise<Readiness> {
    const answer = await this.#connection.request("GET", "/readyz", { accepted: 503 });
    return answer.document() as Readiness;
  }
}

/** The address without a slash at its end. */
function checkedUrl(baseUrl: string): string {
  const url = URL.canParse(baseUrl) ? new URL(baseUrl) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    const shown = String(baseUrl).includes("@") ? "It" : `'${baseUrl}'`; // what stands before an @ may be a password
    throw wrong("baseUrl", `${shown} is no address of a server, such as ${DEFAULT_URL}`);
  }
  if (url.username !== "" || url.password !== "") {
    throw wrong("baseUrl", "It should hold no user and no password, which messages would show: use apiKey");
  }
  return baseUrl.replace(/\/+$/, "");
}

function header(
  name: string,
  value: string | undefined,
  write: (value: string) => Record<string, string>,
): Record<string, string> {
  if (value === undefined) {
    return {};
  }
  if (!/^[ -~]+$/.test(value) || value !== value.trim()) {
    throw wrong(name, "It should be printable ASCII, without spaces around it");
  }
  return write(value);
}

function wrong(name: string, text: string): ValidationError {
  return new ValidationError(`${name}: ${text}.`, { errors: { fieldErrors: { [name]: [text] } } });
}
