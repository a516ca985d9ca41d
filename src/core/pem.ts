/**
 * Certificates and keys in PEM text, as configuration names them. Owns: reading, and the sentences on what is wrong.
 * Does not own: the TLS that is made of them.
 */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { messageOf, ProtocolConfigurationError } from "./errors.ts";
import { isObject } from "./json.ts";

/** Of a certificate and its key: the configuration's keys, and what they hold. */
export interface PemSource {
  /** As errors name it: `service_cert`. */
  readonly key: string;
  /** Path, from the working directory; or PEM text itself. */
  readonly value: string;
}

const block = /-----BEGIN ([A-Z0-9 ]+)-----[^-]+-----END \1-----/g;

/**
 * The PEM text, which holds one certificate or more.
 *
 * @throws ProtocolConfigurationError naming the key, the file and the remedy
 */
export function readCertificates(source: PemSource): string {
  const text = textOf(source);
  const certificates = [...text.matchAll(block)].filter(([, label]) => label?.endsWith("CERTIFICATE"));
  if (certificates.length === 0)
    throw wrong(source, `holds no certificate: give a file with "-----BEGIN CERTIFICATE-----"`);
  for (const [index, [pem]] of certificates.entries()) parse(source, index, pem);
  return text;
}

/**
 * The PEM text, which holds a private key that fits the certificate.
 *
 * @param certificates PEM text; the first is the one that the key is of
 * @throws ProtocolConfigurationError naming the key, the file and the remedy
 */
export function readKeyOf(certificates: string, source: PemSource): string {
  const text = textOf(source);
  let fits: boolean;
  try {
    fits = new X509Certificate(certificates).checkPrivateKey(createPrivateKey(text));
  } catch (error) {
    throw wrong(
      source,
      text.includes("ENCRYPTED")
        ? "is encrypted: give the key without a passphrase, in a file that only this user can read"
        : `holds no private key: give a file with "-----BEGIN PRIVATE KEY-----"`,
      error,
    );
  }
  if (!fits) throw wrong(source, "is not the key of the certificate: give both of one pair");
  return text;
}

function parse(source: PemSource, index: number, pem: string): void {
  try {
    new X509Certificate(pem);
  } catch (error) {
    throw wrong(source, `has a damaged certificate (number ${index + 1}): ${messageOf(error)}`, error);
  }
}

const isPem = (value: string): boolean => value.includes("-----BEGIN");

function textOf(source: PemSource): string {
  if (isPem(source.value)) return source.value;
  try {
    return readFileSync(resolve(source.value), "utf8");
  } catch (error) {
    const why = isObject(error) && typeof error.code === "string" ? error.code : messageOf(error);
    throw wrong(
      source,
      `cannot be read (${why}): give the path of a PEM file that this user can read`,
      error,
    );
  }
}

function wrong({ key, value }: PemSource, problem: string, cause?: unknown): ProtocolConfigurationError {
  const what = isPem(value) ? "its PEM text" : resolve(value);
  return new ProtocolConfigurationError(`Config key '${key}': ${what} ${problem}.`, { cause });
}
