/**
 * Makes a schema stand alone: what it refers to in other files, or by `$id` and anchor, is brought into it and every
 * reference becomes a JSON pointer. Owns reference resolution. Does not own: reading files (`load` hands them in).
 *
 * 1. The network is never asked.
 * 2. A target that already stands in the schema is not copied; any other is copied once, so cycles end.
 * 3. `$id` does not survive: two schemas of one validator must not claim one address.
 */
import { basename, dirname, extname, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { isMap, type Json, type JsonMap, pointerText, SchemaProblem, tooLarge } from "./schema-json.ts";
import { declaredDialect, type Dialect, dialectUris, mapSubschemas, subschemas } from "./schema-walk.ts";

/** Sub-schemas looked at for one tool: a limit for files far larger than what is used of them. */
const maxVisits = 100_000;

/** Returns a file's content, or undefined where it has not been read yet; throws SchemaProblem where it cannot be. */
export type LoadDocument = (file: string) => Json | undefined;

interface Document {
  readonly file: string | undefined;
  readonly data: Json;
  readonly base: string;
  /** Address of every resource -> where it is. */
  readonly resources: ReadonlyMap<string, readonly string[]>;
  /** `address#anchor` -> where it is. */
  readonly anchors: ReadonlyMap<string, readonly string[]>;
  /** Pointer of every schema -> the address its references are relative to. */
  readonly bases: ReadonlyMap<string, string>;
  /** Names of dynamic anchors, once per resource that has them. */
  readonly dynamic: readonly string[];
}

interface Target {
  readonly document: Document;
  readonly tokens: readonly string[];
}

export interface Bundled {
  readonly schema: JsonMap;
  readonly dialect: Dialect;
}

/**
 * Brings together what `root` refers to.
 *
 * @param file absolute path of the file that `root` stands in; undefined for one written in code
 * @returns undefined when `load` had to be asked for a file that is not there yet
 * @throws SchemaProblem
 */
export function bundle(root: JsonMap, file: string | undefined, load: LoadDocument): Bundled | undefined {
  try {
    return new Bundler(load).run(root, file);
  } catch (error) {
    if (error instanceof NotLoaded) return undefined;
    throw error;
  }
}

class NotLoaded extends Error {}

class Bundler {
  readonly #load: LoadDocument;
  readonly #documents = new Map<string, Document>();
  readonly #names = new Map<string, string>();
  readonly #queue: { readonly name: string; readonly target: Target }[] = [];
  #taken = new Set<string>();
  #dialect: Dialect = "2020-12";
  #home: Target | undefined;
  #visits = 0;

  constructor(load: LoadDocument) {
    this.#load = load;
  }

  run(inline: JsonMap, file: string | undefined): Bundled {
    const start = this.#index(inline, file);
    const { home, schema } = this.#enter({ document: start, tokens: [] }, inline);
    this.#home = home;
    const inlineDialect = declaredDialect(inline);
    const declared = declaredDialect(schema) ?? declaredDialect(home.document.data) ?? inlineDialect;
    this.#dialect = declared ?? "2020-12";
    if (inlineDialect !== undefined && inlineDialect !== declared) throw this.#mixed(home, declared);
    const holder = this.#dialect === "2020-12" ? "$defs" : "definitions";
    const own = schema[holder];
    this.#taken = new Set(isMap(own) ? Object.keys(own) : []);
    const result = this.#copy(schema, home, baseOf(home));
    const added: JsonMap = {};
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      const { name, target } = next;
      added[name] = this.#copyAny(valueAt(target), target, baseOf(target));
    }
    const kept = result[holder];
    if (Object.keys(added).length > 0) result[holder] = { ...(isMap(kept) ? kept : {}), ...added };
    this.#checkDynamic();
    if (declared === undefined) return { schema: result, dialect: this.#dialect };
    const $schema = dialectUris[declared];
    // Named first where it is added, left in its place where it was.
    return {
      schema: { ...(result.$schema === undefined && { $schema }), ...result, $schema },
      dialect: declared,
    };
  }

  /** A root that is nothing but a reference to a file becomes what it refers to: clients look for properties there. */
  #enter(start: Target, inline: JsonMap): { home: Target; schema: JsonMap } {
    let home = start;
    let schema = inline;
    const seen = new Set<string>();
    while (typeof schema.$ref === "string" && Object.keys(schema).every((key) => besideRef.has(key))) {
      const target = this.#resolve(schema.$ref, home.document, baseOf(home));
      if (target.document === home.document) break;
      const key = `${target.document.base}#${pointerText(target.tokens)}`;
      const value = valueAt(target);
      if (seen.has(key)) throw new SchemaProblem(`$ref ${schema.$ref} leads back to itself`);
      if (!isMap(value)) break;
      seen.add(key);
      const { $ref: _ref, $schema: _schema, ...beside } = schema;
      home = target;
      schema = { ...value, ...beside };
    }
    return { home, schema };
  }

  #copyAny(value: Json, origin: Target, base: string): Json {
    if (!isMap(value)) return value;
    const declared = declaredDialect(value) ?? declaredDialect(origin.document.data);
    if (declared !== undefined && declared !== this.#dialect) throw this.#mixed(origin, declared);
    const { $schema: _, ...rest } = this.#copy(value, origin, base);
    return rest;
  }

  #copy(schema: JsonMap, origin: Target, outerBase: string): JsonMap {
    this.#visit();
    const base = origin.document.bases.get(pointerText(origin.tokens)) ?? outerBase;
    const copy = mapSubschemas(schema, ({ value, tokens }) =>
      this.#copyAny(value, { document: origin.document, tokens: [...origin.tokens, ...tokens] }, base),
    );
    delete copy.$id;
    const { $dynamicRef: dynamic, $dynamicAnchor: _, ...result } = copy;
    if (!this.#keepsAnchors(origin, base)) delete result.$anchor;
    if (typeof schema.$ref === "string") result.$ref = this.#point(schema.$ref, origin, base);
    if (typeof dynamic !== "string") return result;
    // The one target there can be (checked at the end) makes a dynamic reference a plain one, which every validator follows.
    const $ref = this.#point(dynamic, origin, base);
    if (result.$ref === undefined) return { ...result, $ref };
    return { ...result, allOf: [...(Array.isArray(result.allOf) ? result.allOf : []), { $ref }] };
  }

  #mixed(place: Target, dialect: Dialect | undefined): SchemaProblem {
    return new SchemaProblem(
      `${nameOf(place)} is in ${dialect ?? "no dialect"}, what refers to it in another`,
    );
  }

  /** Anchors of other resources could meet the root's; references to them are pointers by now. */
  #keepsAnchors(origin: Target, base: string): boolean {
    const { document } = origin;
    return document === this.#home?.document && this.#home.tokens.length === 0 && base === baseOf(this.#home);
  }

  #point(reference: string, origin: Target, base: string): string {
    return `#${encodePointer(this.#place(this.#resolve(reference, origin.document, base)))}`;
  }

  /** Where the target stands in the result. (2) */
  #place(target: Target): readonly string[] {
    const { document, tokens } = target;
    const home = this.#home;
    if (home?.document === document && home.tokens.every((token, index) => token === tokens[index])) {
      const inside = tokens.slice(home.tokens.length);
      if (inside.length === 0 || document.bases.has(pointerText(tokens))) return inside;
    }
    const key = `${document.base}#${pointerText(tokens)}`;
    let name = this.#names.get(key);
    if (name === undefined) {
      name = this.#freeName(target);
      this.#names.set(key, name);
      this.#queue.push({ name, target });
    }
    return [this.#dialect === "2020-12" ? "$defs" : "definitions", name];
  }

  #freeName(target: Target): string {
    const file = target.document.file ?? "schema";
    const wish = (target.tokens.at(-1) ?? basename(file, extname(file))).replaceAll(/[^A-Za-z0-9_.-]+/g, "_");
    let name = wish;
    for (let number = 2; this.#taken.has(name); number += 1) name = `${wish}_${number}`;
    this.#taken.add(name);
    return name;
  }

  #resolve(reference: string, document: Document, base: string): Target {
    const hash = reference.indexOf("#");
    const address = hash === -1 ? reference : reference.slice(0, hash);
    const fragment = decode(hash === -1 ? "" : reference.slice(hash + 1), reference);
    const inside = address === "" ? base : resolveUri(address, base);
    const resource = document.resources.get(inside);
    if (resource !== undefined) return this.#within(document, resource, inside, fragment, reference);
    const other = this.#document(this.#fileOf(address, document, reference));
    return this.#within(other, [], other.base, fragment, reference);
  }

  #fileOf(address: string, document: Document, reference: string): string {
    if (/^([a-z][a-z0-9+.-]*:|\/\/)/i.test(address)) {
      throw new SchemaProblem(
        `$ref ${JSON.stringify(reference)} is an address: schemas are never fetched, refer to a file beside the contract`,
      ); // (1)
    }
    if (document.file === undefined) {
      throw new SchemaProblem(
        `$ref ${JSON.stringify(reference)} leads out of the schema, and a schema that is not in a file cannot refer to one`,
      );
    }
    return resolve(dirname(document.file), decode(address, reference));
  }

  #within(
    document: Document,
    resource: readonly string[],
    address: string,
    fragment: string,
    reference: string,
  ): Target {
    let tokens: readonly string[] | undefined = resource;
    if (fragment.startsWith("/")) {
      const steps = fragment.slice(1).split("/");
      tokens = [...resource, ...steps.map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))];
    } else if (fragment !== "") {
      tokens = document.anchors.get(`${address}#${fragment}`);
    }
    if (tokens === undefined || !exists(document.data, tokens)) {
      throw new SchemaProblem(`$ref ${JSON.stringify(reference)} leads to nothing`);
    }
    return { document, tokens };
  }

  #document(file: string): Document {
    const known = this.#documents.get(file);
    if (known !== undefined) return known;
    const data = this.#load(file);
    if (data === undefined) throw new NotLoaded();
    const document = this.#index(data, file);
    this.#documents.set(file, document);
    return document;
  }

  #index(data: Json, file: string | undefined): Document {
    const base = file === undefined ? "schema:///root" : pathToFileURL(file).href;
    const resources = new Map<string, readonly string[]>([[base, []]]);
    const anchors = new Map<string, readonly string[]>();
    const bases = new Map<string, string>();
    const dynamic = new Set<string>();
    const visit = (schema: Json, tokens: readonly string[], outer: string): void => {
      if (!isMap(schema)) {
        if (typeof schema === "boolean") bases.set(pointerText(tokens), outer);
        return;
      }
      this.#visit();
      let address = outer;
      if (typeof schema.$id === "string") {
        // In draft-07 an `$id` that is only a fragment is an anchor.
        if (schema.$id.startsWith("#")) anchors.set(`${outer}${schema.$id}`, tokens);
        else {
          address = resolveUri(schema.$id.replace(/#$/, ""), outer);
          resources.set(address, tokens);
        }
      }
      if (typeof schema.$anchor === "string") anchors.set(`${address}#${schema.$anchor}`, tokens);
      if (typeof schema.$dynamicAnchor === "string") {
        anchors.set(`${address}#${schema.$dynamicAnchor}`, tokens);
        dynamic.add(`${address}#${schema.$dynamicAnchor}`);
      }
      bases.set(pointerText(tokens), address);
      for (const sub of subschemas(schema)) visit(sub.value, [...tokens, ...sub.tokens], address);
    };
    visit(data, [], base);
    const names = [...dynamic].map((anchor) => anchor.slice(anchor.lastIndexOf("#") + 1));
    return { file, data, base, resources, anchors, bases, dynamic: names };
  }

  #checkDynamic(): void {
    const documents = new Set(this.#documents.values());
    if (this.#home !== undefined) documents.add(this.#home.document);
    const seen = new Set<string>();
    for (const name of [...documents].flatMap((document) => document.dynamic)) {
      if (seen.has(name))
        throw new SchemaProblem(`$dynamicAnchor ${name} is declared by more than one resource`);
      seen.add(name);
    }
  }

  #visit(): void {
    this.#visits += 1;
    if (this.#visits > maxVisits) throw new SchemaProblem(tooLarge);
  }
}

/** Keys that may stand beside a root's `$ref` without changing what it accepts. */
const besideRef = new Set([
  "$comment",
  "$ref",
  "$schema",
  "default",
  "deprecated",
  "description",
  "examples",
  "title",
]);

const baseOf = ({ document, tokens }: Target): string =>
  document.bases.get(pointerText(tokens)) ?? document.base;

const nameOf = ({ document, tokens }: Target): string =>
  `${basename(document.file ?? "the schema")}${tokens.length === 0 ? "" : `#${pointerText(tokens)}`}`;

function resolveUri(address: string, base: string): string {
  return URL.canParse(address, base) ? new URL(address, base).href : address;
}

function decode(text: string, reference: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new SchemaProblem(`$ref ${JSON.stringify(reference)} is not a valid address`);
  }
}

const encodePointer = (tokens: readonly string[]): string =>
  encodeURI(pointerText(tokens)).replaceAll("#", "%23");

function step(value: Json | undefined, token: string): Json | undefined {
  if (Array.isArray(value)) return /^\d+$/.test(token) ? value[Number(token)] : undefined;
  return isMap(value) && Object.hasOwn(value, token) ? value[token] : undefined;
}

const exists = (data: Json, tokens: readonly string[]): boolean =>
  tokens.reduce<Json | undefined>(step, data) !== undefined;

function valueAt(target: Target): Json {
  return target.tokens.reduce<Json | undefined>(step, target.document.data) ?? null;
}
