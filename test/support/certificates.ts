/** Certificate authorities of a test's own, made by openssl; their files are gone when the test is over. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { onTestFinished } from "vitest";

export interface Issued {
  /** PEM text, and the files that hold it. */
  readonly cert: string;
  readonly key: string;
  readonly certFile: string;
  readonly keyFile: string;
}

export interface Authority {
  readonly ca: string;
  readonly caFile: string;
  readonly folder: string;
  /**
   * A certificate for these names, `IP:127.0.0.1` unless others are given, valid from yesterday until tomorrow unless
   * other years are.
   */
  issue(wish?: { readonly names?: string; readonly from?: number; readonly until?: number }): Issued;
}

const newKey = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split(" ");

export function authority(): Authority {
  const folder = mkdtempSync(join(tmpdir(), "onex-authority-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const openssl = (...args: readonly string[]): void =>
    void execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
  const file = (name: string): string => join(folder, name);
  const read = (name: string): string => readFileSync(file(name), "utf8");
  openssl(
    "req",
    "-x509",
    ...newKey,
    "-days",
    "2",
    "-subj",
    "/CN=authority",
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
  );
  writeFileSync(file("issued"), "");
  mkdirSync(file("new"));
  writeFileSync(file("ca.cnf"), settings);
  let count = 0;
  return {
    ca: read("ca.pem"),
    caFile: file("ca.pem"),
    folder,
    issue({ names = "IP:127.0.0.1", from, until } = {}) {
      const name = `leaf${++count}`;
      const [key, request, cert] = [`${name}.key`, `${name}.csr`, `${name}.pem`];
      openssl("req", ...newKey, "-subj", `/CN=${name}`, "-keyout", key, "-out", request);
      writeFileSync(file("names"), `subjectAltName=${names}\n`);
      const issuing = "ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -extfile names".split(
        " ",
      );
      const dates = ["-startdate", dateOf(from, -1), "-enddate", dateOf(until, 1)];
      openssl(...issuing, ...dates, "-in", request, "-out", cert);
      return { cert: read(cert), key: read(key), certFile: file(cert), keyFile: file(key) };
    },
  };
}

const settings = `[ca]
default_ca = own
[own]
database = issued
new_certs_dir = new
default_md = sha256
policy = names
rand_serial = yes
unique_subject = no
[names]
commonName = supplied
`;

/** The beginning of the year, else so many days from now, as openssl writes it: 20261120120000Z. */
function dateOf(year: number | undefined, days: number): string {
  const date = year === undefined ? new Date(Date.now() + days * 86_400_000) : new Date(Date.UTC(year, 0, 1));
  return date.toISOString().replaceAll(/[-:T]|\.\d+/g, "");
}
