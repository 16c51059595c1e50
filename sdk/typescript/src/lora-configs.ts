/** LoRA configs: training configurations, by name and with one default per tenant. */

import { type Connection, segment } from "./connection.js";
import type { Listing } from "./listing.js";
import type { LoraConfig, LoraConfigChange, LoraConfigDraft, LoraConfigQuery } from "./types.js";

/** How something is made. */
export interface MakeOptions {
  /** By which the server knows a repetition; by default one for this call. */
  idempotencyKey?: string;
}

/** The tenant's training configurations. */
export class LoraConfigs {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /**
   * A new configuration. As the default it takes the place of the one before.
   *
   * Throws `ValidationError`, whose `errors` say what is wrong with which field, and `ConflictError` where the name is
   * taken, by the configuration `existingId`.
   */
  async create(draft: LoraConfigDraft, options: MakeOptions = {}): Promise<LoraConfig> {
    return await this.#connection.make("/lora-configs", draft, options.idempotencyKey);
  }

  /** One configuration. */
  async get(id: string): Promise<LoraConfig> {
    return await this.#connection.get(path(id));
  }

  /** All configurations, the newest first unless sorted otherwise. */
  list(query: LoraConfigQuery = {}): Listing<LoraConfig> {
    return this.#connection.list("/lora-configs", query);
  }

  /** The configuration that jobs take which name none; null where the tenant has none. */
  async default(): Promise<LoraConfig | null> {
    const { items } = await this.list({ isDefault: true }).page({ take: 1 });
    return items[0] ?? null;
  }

  /** Make this the default configuration. */
  async setDefault(id: string): Promise<LoraConfig> {
    return await this.update(id, { isDefault: true });
  }

  /** Change the fields that are given; `meta` is replaced whole, null clears `description` and `outputPath`. */
  async update(id: string, change: LoraConfigChange): Promise<LoraConfig> {
    return await this.#connection.patch(path(id), change);
  }

  /** Delete a configuration; throws `RefusedError` while pending or running jobs use it. */
  async delete(id: string): Promise<void> {
    await this.#connection.delete(path(id));
  }
}

function path(id: string): string {
  return `/lora-configs/${segment(id)}`;
}
