/** Streams of events, however they are written and wherever they are cut. It reads what `npm run build` made. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { EventStreamParser, type ServerSentEvent } from "../dist/event-stream.js";

const STREAM = [
  "\ufeff: open",
  "",
  "event: status",
  'data: {"status": "läuft 🏃"}',
  "id: 1",
  "",
  "data:first",
  "data: second",
  "data:  third",
  "data",
  "",
  ": only a heartbeat",
  "",
  "id: 2\0",
  "retry: 10",
  "nonsense: 1",
  "event",
  "data: x:y",
  "",
  "data: never ended",
];
const EVENTS: ServerSentEvent[] = [
  { type: "status", data: '{"status": "läuft 🏃"}', id: "1" },
  { type: "message", data: "first\nsecond\n third\n", id: "1" },
  { type: "message", data: "x:y", id: "1" },
];

function read(pieces: Uint8Array[]): ServerSentEvent[] {
  const parser = new EventStreamParser();
  return pieces.flatMap((piece) => parser.push(piece));
}

function bytesOf(ending: string): Uint8Array {
  return new TextEncoder().encode(STREAM.join(ending));
}

for (const [name, ending] of Object.entries({ "\\n": "\n", "\\r\\n": "\r\n", "\\r": "\r" })) {
  test(`lines that end with ${name}, cut anywhere`, () => {
    const bytes = bytesOf(ending);
    for (let cut = 0; cut <= bytes.length; cut++) {
      assert.deepEqual(read([bytes.slice(0, cut), bytes.slice(cut)]), EVENTS, `cut at ${cut}`);
    }
  });

  test(`lines that end with ${name}, byte by byte`, () => {
    const pieces = Array.from(bytesOf(ending), (byte) => Uint8Array.of(byte));
    assert.deepEqual(read([new Uint8Array(), ...pieces]), EVENTS);
  });
}

test("an event is there as soon as its last line has ended", () => {
  const parser = new EventStreamParser();
  const push = (text: string): ServerSentEvent[] => parser.push(new TextEncoder().encode(text));
  assert.deepEqual(push("data: 1\r"), []);
  assert.deepEqual(push("\r"), [{ type: "message", data: "1", id: "" }]);
  assert.deepEqual(push("\ndata: 2\n"), []);
  assert.deepEqual(push("\n"), [{ type: "message", data: "2", id: "" }]);
  assert.deepEqual(push("\n\n\n"), []);
});

test("an id counts for later events too, until another one is given", () => {
  const events = read([new TextEncoder().encode("id: 7\n\ndata: a\n\nid\ndata: b\n\n")]);
  assert.deepEqual(
    events.map((event) => event.id),
    ["7", ""],
  );
});
