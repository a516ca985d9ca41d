/**
 * From a contract's `handler_class` to a handler. Owns: which modules may be loaded, finding the export, and checking
 * that what comes out is a handler. Does not own: reading contracts (`contracts.ts`), running handlers (`host.ts`).
 *
 * 1. A path never leads out of the contracts directory, whatever links say.
 * 2. A package is loaded only where `allowedNamespaces` covers it; the runtime's own name always is.
 * 3. Every failure is a HandlerLoadError with a code of its own and says what to do.
 */
import { realpath, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, isAbsolute, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { isInside, systemCode } from "../contract/load.ts";
import { HandlerLoadError, messageOf } from "../core/errors.ts";
import type { Container, Handler, HandlerClass } from "./handler.ts";

/** Imports the module at an absolute path. */
export type ImportModule = (path: string) => Promise<Readonly<Record<string, unknown>>>;

export interface LoaderOptions {
  /** What relative paths must stay inside; undefined: no path is accepted, only packages are. */
  readonly contractsDir?: string;
  /** Packages whose handlers may be loaded: `acme-handlers`, `@acme` (the scope), `@acme/handlers/sub`. */
  readonly allowedNamespaces: readonly string[];
  /** Handlers the caller has at hand, by their whole `handler_class`: these are not imported. */
  readonly own?: ReadonlyMap<string, () => Promise<HandlerClass>>;
  /** How modules of the contracts directory are imported; packages are always imported plainly. Default: the same. */
  readonly importModule?: ImportModule;
}

/** The name under which the runtime's own handlers are given in contracts. */
const ownPackage = "onex-runtime";

const importPlain: ImportModule = async (target) =>
  (await import(isAbsolute(target) ? pathToFileURL(target).href : target)) as Record<string, unknown>;

/**
 * The export that a contract names.
 *
 * @param handlerClass `module#Export`
 * @param contractFile absolute path of the contract, links resolved; packages are looked for beside it too
 * @throws HandlerLoadError 010, 011, 012, 013, or 006 where the export cannot be constructed
 */
export async function loadHandlerClass(
  handlerClass: string,
  contractFile: string | undefined,
  options: LoaderOptions,
): Promise<HandlerClass> {
  const own = options.own?.get(handlerClass);
  if (own !== undefined) return await own();
  const { module, exportName } = splitClass(handlerClass);
  const loaded =
    module.startsWith("./") || module.startsWith("../") || isAbsolute(module)
      ? await importFile(module, handlerClass, contractFile, options)
      : await importPackage(module, handlerClass, contractFile, options);
  if (!Object.hasOwn(loaded, exportName)) {
    const names = Object.keys(loaded);
    throw failure(
      "011",
      `${module} has no export ${exportName}; it has ${names.length === 0 ? "none" : names.join(", ")}`,
    );
  }
  const value = loaded[exportName];
  if (!isConstructor(value)) {
    throw failure(
      "006",
      `${handlerClass} is ${value === null ? "null" : `a ${typeof value}`} that cannot be constructed: export a class or the value of defineHandler({...})`,
    );
  }
  return value;
}

const methods = ["initialize", "execute", "shutdown", "healthCheck", "describe"] as const;

/**
 * A handler of this class, checked.
 *
 * @param handlerClass named in messages
 * @throws HandlerLoadError 006 naming what is missing, or 012 where the constructor throws
 */
export function constructHandler(Class: HandlerClass, handlerClass: string, container: Container): Handler {
  let handler: Handler;
  try {
    handler = new Class(container);
  } catch (thrown) {
    throw failure("012", `the constructor of ${handlerClass} threw: ${messageOf(thrown)}`, thrown);
  }
  const missing: string[] = methods.filter((name) => typeof handler[name] !== "function");
  if (typeof handler.handlerType !== "string") missing.unshift("handlerType");
  const handlerId: unknown = handler.handlerId;
  if (handlerId !== undefined && typeof handlerId !== "string") missing.push("a handlerId that is a string");
  if (missing.length > 0) {
    throw failure("006", `${handlerClass} is not a handler: it lacks ${missing.join(", ")}`);
  }
  return handler;
}

function splitClass(handlerClass: string): { module: string; exportName: string } {
  const at = handlerClass.lastIndexOf("#");
  const module = handlerClass.slice(0, at);
  const exportName = handlerClass.slice(at + 1);
  if (at > 0 && exportName !== "") return { module, exportName };
  const python = /^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$/.test(handlerClass);
  throw failure(
    "010",
    `handler_class ${JSON.stringify(handlerClass)} ${python ? "is a Python-style dotted path" : "names no export"}: module#Export is needed, as in ./handler.ts#MyHandler`,
  );
}

async function importFile(
  module: string,
  handlerClass: string,
  contractFile: string | undefined,
  options: LoaderOptions,
): Promise<Readonly<Record<string, unknown>>> {
  if (options.contractsDir === undefined || contractFile === undefined) {
    throw failure(
      "013",
      `${handlerClass} is a path, and only a contract in the contracts directory may name one: install the module as a package that allowed_namespaces covers`,
    );
  }
  const outside = `${handlerClass} leads out of the contracts directory: keep the module inside it or install it as a package`;
  if (isAbsolute(module)) throw failure("013", outside);
  const root = await realpath(options.contractsDir);
  const path = resolve(dirname(contractFile), module);
  // Judged before the file system is asked, so that a message does not tell what exists elsewhere. (1)
  if (!isInside(root, path)) throw failure("013", outside);
  let file: string;
  try {
    file = await realpath(path);
  } catch (thrown) {
    const code = systemCode(thrown);
    throw failure(
      "010",
      code === "ENOENT" || code === "ENOTDIR"
        ? `${module} does not exist beside the contract`
        : `${module} cannot be read: ${messageOf(thrown)}`,
      thrown,
    );
  }
  if (!isInside(root, file)) throw failure("013", outside);
  if (!(await stat(file)).isFile()) throw failure("007", `${module} is not a file`);
  return await imported(file, handlerClass, options.importModule ?? importPlain);
}

async function importPackage(
  specifier: string,
  handlerClass: string,
  contractFile: string | undefined,
  options: LoaderOptions,
): Promise<Readonly<Record<string, unknown>>> {
  const covered = [ownPackage, ...options.allowedNamespaces].some(
    (namespace) => specifier === namespace || specifier.startsWith(`${namespace.replace(/\/+$/, "")}/`),
  );
  if (!covered || !isPackageSpecifier(specifier)) {
    throw failure(
      "013",
      `${handlerClass}: no allowed_namespaces entry covers ${JSON.stringify(specifier)}; add one, or write ./ before a path`,
    );
  }
  try {
    return await imported(specifier, handlerClass, importPlain);
  } catch (thrown) {
    if (!isUnresolved(thrown, specifier)) throw thrown;
    // Not installed beside the runtime; perhaps beside the contract.
    const nearContract = contractFile === undefined ? undefined : resolveFrom(contractFile, specifier);
    if (nearContract !== undefined) return await imported(nearContract, handlerClass, importPlain);
    throw failure(
      "010",
      `package ${specifier} is not installed where the contract or the runtime could find it`,
      thrown,
    );
  }
}

async function imported(
  target: string,
  handlerClass: string,
  importModule: ImportModule,
): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await importModule(target);
  } catch (thrown) {
    throw failure("012", `the module of ${handlerClass} could not be imported: ${messageOf(thrown)}`, thrown);
  }
}

/** A bare specifier: neither a path, nor a URL, nor a way out of the package. */
function isPackageSpecifier(specifier: string): boolean {
  return (
    /^(@[\w.-]+\/)?[A-Za-z0-9_][\w.-]*(\/[\w.-]+)*$/.test(specifier) && !specifier.split("/").includes("..")
  );
}

/** True where the package itself was not found, false where something that it imports was not. */
function isUnresolved(thrown: unknown, specifier: string): boolean {
  const cause = thrown instanceof HandlerLoadError ? thrown.cause : undefined;
  const code = systemCode(cause);
  if (code === "ERR_PACKAGE_PATH_NOT_EXPORTED") return true;
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  return code === "ERR_MODULE_NOT_FOUND" && messageOf(cause).includes(`'${name}'`);
}

function resolveFrom(contractFile: string, specifier: string): string | undefined {
  try {
    return createRequire(contractFile).resolve(specifier);
  } catch {
    return undefined;
  }
}

function isConstructor(value: unknown): value is HandlerClass {
  if (typeof value !== "function") return false;
  try {
    // Asks for [[Construct]] without running the constructor.
    Reflect.construct(Object, [], value);
    return true;
  } catch {
    return false;
  }
}

function failure(number: string, message: string, cause?: unknown): HandlerLoadError {
  return new HandlerLoadError(`HANDLER_LOADER_${number}`, message, cause === undefined ? {} : { cause });
}
