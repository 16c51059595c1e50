/** Disk: what reads and writes files, which browsers cannot; `no-disk.ts` stands in its place there. */

export { download } from "./download.js";
export { portionsOf } from "./folder.js";
