// `girih-manifest.json`: sizes and hashes of the files of a model.
import { GirihError } from "./errors.js";
import type { Manifest } from "./types.js";

/** Its name beside a model. */
export const MANIFEST_FILE = "girih-manifest.json";

/** Bytes of a block, unless a manifest says otherwise. */
export const BLOCK_BYTES = 4 << 20;

const HASH = /^[0-9a-f]{64}$/;

/** A manifest from the text of its file. `where` is named in errors. */
export function parseManifest(text: string, where: string): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (thrown) {
    throw new GirihError("malformed-model", `${where}: not JSON: ${(thrown as Error).message}`, { cause: thrown });
  }
  return checkManifest(value, where);
}

/** Any value as a manifest. */
export function checkManifest(value: unknown, where: string): Manifest {
  const fail = (what: string): never => {
    throw new GirihError("malformed-model", `${where}: ${what}`);
  };
  const { version, files } = isRecord(value) ? value : {};
  if (version !== 1) fail(`version is ${JSON.stringify(version)}, expected 1`);
  if (!isRecord(files)) return fail("`files` is not an object");
  for (const [file, entry] of Object.entries(files)) {
    if (!isRecord(entry)) return fail(`${file}: not an object`);
    const { size, sha256, blockSize = BLOCK_BYTES, blocks } = entry;
    if (!isCount(size)) return fail(`${file}: size is ${JSON.stringify(size)}, expected a number of bytes`);
    if (!isHash(sha256)) fail(`${file}: sha256 is ${JSON.stringify(sha256)}, expected 64 hexadecimal digits`);
    if (!isCount(blockSize) || blockSize < 1024 || blockSize > 64 << 20) {
      return fail(`${file}: blockSize is ${JSON.stringify(blockSize)}, expected 1 KiB to 64 MiB`);
    }
    if (blocks === undefined) continue;
    const wanted = Math.ceil(size / blockSize);
    if (!Array.isArray(blocks) || blocks.length !== wanted || !blocks.every(isHash)) {
      fail(`${file}: \`blocks\` must be ${wanted} hashes of 64 hexadecimal digits`);
    }
  }
  return value as Manifest;
}

/** The digits of `"sha256-<hex>"`. */
export function parseIntegrity(file: string, value: string): string {
  const hex = value.startsWith("sha256-") ? value.slice("sha256-".length).toLowerCase() : "";
  if (!HASH.test(hex)) {
    throw new GirihError("bad-argument", `integrity of ${file} is "${value}", expected "sha256-" and 64 hexadecimal digits`);
  }
  return hex;
}

/** sha256 of bytes, as hexadecimal digits. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}

/** Bytes as hexadecimal digits. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function isHash(value: unknown): value is string {
  return typeof value === "string" && HASH.test(value);
}
