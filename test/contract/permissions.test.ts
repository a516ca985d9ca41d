/** Contracts that this process may not read. */
import { chmod } from "node:fs/promises";
import { expect, test } from "vitest";
import { scanContracts, type LoadEntry } from "../../src/contract/load.ts";
import { HandlerLoadError } from "../../src/core/errors.ts";
import { tempFolder } from "./folder.ts";

const fileName = "handler_contract.yaml";
/** Root may read everything, so it becomes somebody else for a moment. */
const nobody = 65_534;

async function asSomebody<T>(work: () => Promise<T>): Promise<T> {
  if (process.geteuid?.() !== 0) return await work();
  process.seteuid?.(nobody);
  try {
    return await work();
  } finally {
    process.seteuid?.(0);
  }
}

test.skipIf(process.platform === "win32")(
  "a file that may not be read is error 008, a folder 021; the others are read",
  async () => {
    await using folder = await tempFolder();
    await chmod(folder.path, 0o755);
    await folder.write(`open/${fileName}`, "name: open");
    await folder.write(`file/${fileName}`, "name: secret");
    await folder.write(`folder/${fileName}`, "name: secret");
    await chmod(folder.at(`file/${fileName}`), 0);
    await chmod(folder.at("folder"), 0);
    const { files, failures } = await asSomebody(async () => await scanContracts(folder.path, fileName));
    await chmod(folder.at("folder"), 0o755);
    expect(files.map(({ path }) => path)).toEqual([`open/${fileName}`]);
    const codes = ({ path, code }: LoadEntry): unknown[] => [path, code];
    expect(failures.map(codes)).toEqual([
      ["folder", "HANDLER_LOADER_021"],
      [`file/${fileName}`, "HANDLER_LOADER_008"],
    ]);
  },
);

test.skipIf(process.platform === "win32")(
  "a contracts directory that may not be read is error 021 and says to check its permissions",
  async () => {
    await using folder = await tempFolder();
    await chmod(folder.path, 0);
    const error = await asSomebody(
      async () =>
        await scanContracts(folder.path, fileName).then(
          () => undefined,
          (thrown: unknown) => thrown,
        ),
    );
    await chmod(folder.path, 0o755);
    expect(error).toBeInstanceOf(HandlerLoadError);
    expect(error).toMatchObject({
      loaderCode: "HANDLER_LOADER_021",
      message: expect.stringContaining("check its permissions"),
    });
  },
);
