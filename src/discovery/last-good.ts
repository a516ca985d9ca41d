/**
 * A source's last good state on disk. Owns the file, its form, and when it is written. Does not own: what is served of
 * it, or for how long.
 *
 * 1. The file is always whole: a new one is written beside it and takes its place.
 * 2. What cannot be read is kept aside and never served; what cannot be written is reported and tried again at the next
 *    change. Neither is ever the source's trouble.
 * 3. What was handed over last is on disk after `close`.
 */
import { mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { messageOf } from "../core/errors.ts";
import type { Logger } from "../core/log.ts";
import type { InstanceRecord } from "../tools/source.ts";

export interface LastGoodOptions {
  /** Made if absent. */
  readonly directory: string;
  /** Name of the source; the file is `<source>.json`. */
  readonly source: string;
  /** It is read and never written. Default false. */
  readonly readOnly?: boolean;
  readonly log: Logger;
}

export interface SavedState {
  /** ISO 8601, UTC. */
  readonly savedAt: string;
  readonly records: readonly InstanceRecord[];
}

/** Of a file that is read. 5,000 services with a contract of 40 kB each take 200 MB. */
const maxFileBytes = 256 * 1024 * 1024;
/** Of the file's form. Another number is another form, and not read. */
const formVersion = 1;
/** Milliseconds that changes are collected for: a state of thousands of records is written at most this often. */
const settleMs = 1000;

const json = z.record(z.string(), z.json());
const claim = z.union([
  z.object({ toolName: z.string() }).strict(),
  z.object({ refused: z.string() }).strict(),
]);
const execution = z.discriminatedUnion("kind", [
  z.looseObject({ kind: z.literal("onex"), path: z.string() }),
  z.looseObject({ kind: z.literal("rest"), method: z.string(), url: z.string() }),
]);
const record = z.object({
  key: z.string(),
  instance: z.looseObject({
    source: z.enum(["event", "consul"]),
    serviceId: z.string(),
    serviceName: z.string().optional(),
    claim: claim.optional(),
    definition: z.looseObject({
      title: z.string().optional(),
      description: z.string().optional(),
      version: z.string().optional(),
      inputSchema: json.optional(),
      outputSchema: json.optional(),
      annotations: z.record(z.string(), z.boolean()).optional(),
      icons: z.array(z.looseObject({ src: z.string() })).optional(),
      tags: z.array(z.string()).optional(),
      timeoutSeconds: z.number().optional(),
      execution: execution.optional(),
    }),
    url: z.url().optional(),
    weight: z.number().optional(),
    live: z.boolean(),
    down: z.string().optional(),
    index: z.number().optional(),
  }),
  part: z.string().optional(),
  restoredFrom: z.iso.datetime().optional(),
});
const form = z.object({
  version: z.literal(formVersion),
  source: z.string(),
  saved_at: z.iso.datetime(),
  records: z.array(record),
});

export class LastGood {
  readonly #directory: string;
  readonly #file: string;
  readonly #source: string;
  readonly #readOnly: boolean;
  readonly #log: Logger;
  #records: (() => readonly InstanceRecord[]) | undefined;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #problem: string | undefined;

  constructor({ directory, source, readOnly = false, log }: LastGoodOptions) {
    this.#readOnly = readOnly;
    this.#directory = directory;
    this.#source = source;
    this.#file = join(directory, `${source}.json`);
    this.#log = log.child({ file: this.#file });
  }

  /** Why the state is not on disk at present, or undefined where it is. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** What was saved last, by this process or an earlier one; undefined where there is nothing, or nothing readable. (2) */
  async load(): Promise<SavedState | undefined> {
    let text: string;
    try {
      // A device may have no end, a pipe no beginning.
      const kind = await stat(this.#file);
      const { size } = kind;
      if (!kind.isFile()) throw new Error(`${this.#file} is no regular file`);
      if (size > maxFileBytes)
        throw new Error(`${this.#file} is of ${size} bytes, more than ${maxFileBytes}`);
      text = await readFile(this.#file, "utf8");
    } catch (error) {
      const isAbsent = error instanceof Error && "code" in error && error.code === "ENOENT";
      if (!isAbsent) this.#log.warn({ reason: messageOf(error) }, "the last good state cannot be read");
      return undefined;
    }
    const read = readForm(text, this.#source);
    if ("problem" in read) {
      const aside = this.#readOnly ? undefined : `${this.#file}.unreadable`;
      this.#log.warn(
        { reason: read.problem, kept_as: aside },
        "the last good state is not usable and ignored",
      );
      if (aside !== undefined) await rename(this.#file, aside).catch(() => undefined);
      return undefined;
    }
    return read;
  }

  /** Has the present state written soon. @param records is asked when it is written */
  save(records: () => readonly InstanceRecord[]): void {
    if (this.#readOnly) return;
    this.#records = records;
    this.#timer ??= setTimeout(() => {
      void this.#flush();
    }, settleMs);
  }

  /** Writes what is not on disk yet. Never rejects. Idempotent. (3) */
  close(): Promise<void> {
    return this.#flush();
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  async #write(): Promise<void> {
    const records = this.#records;
    if (records === undefined) return;
    this.#records = undefined;
    const text = JSON.stringify({
      version: formVersion,
      source: this.#source,
      saved_at: new Date().toISOString(),
      records: records(),
    });
    const temporary = `${this.#file}.${process.pid}.tmp`;
    try {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await writeWhole(temporary, text);
      await rename(temporary, this.#file); // (1)
      if (this.#problem !== undefined) this.#log.info({}, "the last good state is saved again");
      this.#problem = undefined;
    } catch (error) {
      await rm(temporary, { force: true }).catch(() => undefined);
      const reason = messageOf(error);
      if (this.#problem === undefined) this.#log.warn({ reason }, "the last good state cannot be saved");
      this.#problem = `the last good state cannot be saved: ${reason}`;
      this.#records ??= records;
    }
  }
}

/** On disk before it returns: a rename that outlives a power cut must not lead to an empty file. */
async function writeWhole(file: string, text: string): Promise<void> {
  // Addresses and contracts of an organisation are nobody else's business.
  const handle = await open(file, "w", 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function readForm(text: string, source: string): SavedState | { readonly problem: string } {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return { problem: messageOf(error) };
  }
  const parsed = form.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    return { problem: `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "not understood"}` };
  }
  const { data } = parsed;
  if (data.source !== source) return { problem: `it is the state of ${data.source}, not of ${source}` };
  // What the loose parts hold was written by this program from values of that type.
  return { savedAt: data.saved_at, records: data.records as unknown as readonly InstanceRecord[] };
}
