/** Event stream: server-sent events out of the bytes that carry them (WHATWG HTML, 9.2.6). */

/** One event of a stream. */
export interface ServerSentEvent {
  type: string;
  data: string;
  /** The last id that the stream has given, also with an earlier event. */
  id: string;
}

/** Reads a stream that comes in pieces, wherever they were cut. */
export class EventStreamParser {
  readonly #decoder = new TextDecoder();
  /** Of a line that has not ended. */
  #rest = "";
  /** A line feed that comes next belongs to the carriage return that ended the line before. */
  #skipsLineFeed = false;
  #type = "";
  #data: string[] = [];
  #id = "";

  /** The events that end with these bytes. */
  push(bytes: Uint8Array): ServerSentEvent[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") {
      return [];
    }
    if (this.#skipsLineFeed && text.startsWith("\n")) {
      text = text.slice(1);
    }
    this.#skipsLineFeed = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop() ?? "";
    return lines.flatMap((line) => this.#take(line));
  }

  #take(line: string): ServerSentEvent[] {
    if (line === "") {
      return this.#dispatch();
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") {
      this.#type = value;
    } else if (name === "data") {
      this.#data.push(value);
    } else if (name === "id" && !value.includes("\0")) {
      this.#id = value;
    }
    return [];
  }

  #dispatch(): ServerSentEvent[] {
    const event = { type: this.#type || "message", data: this.#data.join("\n"), id: this.#id };
    const isOne = this.#data.length > 0;
    this.#type = "";
    this.#data = [];
    return isOne ? [event] : [];
  }
}
