/** Listings: every item of a list of the server, page by page, while the list may change. */

/** A slice of a list, and how many items the whole list has. */
export interface Page<Item> {
  items: Item[];
  total: number;
  take: number;
  skip: number;
}

type Fetch<Item> = (skip: number, take: number) => Promise<Page<Item>>;

/**
 * A list that is fetched page by page while it is iterated: `for await (const item of listing)`. Awaited, it is an
 * array of all items.
 *
 * Each item comes once. Items that are deleted on the way, by whoever iterates too, make it miss no other one; items
 * that are added at the front meanwhile are not seen.
 */
export class Listing<Item> implements AsyncIterable<Item>, PromiseLike<Item[]> {
  readonly #fetch: Fetch<Item>;
  readonly #key: (item: Item) => string;
  readonly #pageSize: number;

  constructor(fetch: Fetch<Item>, options: { key: (item: Item) => string; pageSize: number }) {
    this.#fetch = fetch;
    this.#key = options.key;
    this.#pageSize = options.pageSize;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined> {
    const seen = new Set<string>();
    let skip = 0;
    let total = 0;
    while (true) {
      const page = await this.#fetch(skip, this.#pageSize);
      const gone = total - page.total;
      total = page.total;
      if (gone > 0 && skip > 0) {
        skip = Math.max(0, skip - gone); // what comes next has moved to the front by so many places at most
        continue;
      }
      for (const item of page.items) {
        const key = this.#key(item);
        if (!seen.has(key)) {
          seen.add(key);
          yield item;
        }
      }
      skip += page.items.length;
      if (page.items.length === 0 || skip >= total) {
        return;
      }
    }
  }

  /** How many items there are now. */
  async total(): Promise<number> {
    return (await this.#fetch(0, 1)).total;
  }

  /** One page alone, by default the first. */
  async page({ take = this.#pageSize, skip = 0 }: { take?: number; skip?: number } = {}): Promise<Page<Item>> {
    return await this.#fetch(skip, take);
  }

  /** All items, which is what `await` calls. */
  then<Result = Item[], Failure = never>(
    onFulfilled?: ((items: Item[]) => Result | PromiseLike<Result>) | null,
    onRejected?: ((reason: unknown) => Failure | PromiseLike<Failure>) | null,
  ): Promise<Result | Failure> {
    return this.#all().then(onFulfilled, onRejected);
  }

  async #all(): Promise<Item[]> {
    const items: Item[] = [];
    for await (const item of this) {
      items.push(item);
    }
    return items;
  }
}
