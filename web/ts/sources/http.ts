// Models from a server: ranges, retries, what a failure means.
import { GirihError } from "../errors.js";
import { BLOCK_BYTES, MANIFEST_FILE, checkManifest, parseManifest } from "../manifest.js";
import type { Manifest, ModelSource, ProgressEvent } from "../types.js";
import { BlockFile, RangeIgnored, WHOLE_BYTES, type Transport } from "./blocks.js";
import { noCache, type BlockStore, type FileVersion, type StoredModel } from "./opfs.js";

/** Attempts without a block's worth of progress before a transfer is given up. */
const TRIES = 5;
/** The wait before the second attempt; it doubles. */
const BACKOFF_MS = 250;
/** A connection that sends nothing for so long is taken as broken. */
const STALL_MS = 30_000;
/** Progress of a download is reported at most this often. */
const REPORT_MS = 50;

/** Answers that may be others a moment later. */
const TRANSIENT = new Set([408, 425, 429, 500, 502, 503, 504]);

/** A failure that is worth another attempt. */
class Interrupted extends Error {}

interface Probe {
  size: number | null;
  identity: string;
}

function identityOf(response: Response): string {
  return response.headers.get("etag") ?? response.headers.get("last-modified") ?? "";
}

/** Whether both are parts of one split GGUF file: `name-00001-of-00003.gguf`. */
function isPartOf(name: string, other: string): boolean {
  const part = /^(.*)-\d{5}(-of-\d{5}\.gguf)$/i;
  const [one, two] = [part.exec(name), part.exec(other)];
  return one !== null && two !== null && one[1] === two[1] && one[2] === two[2];
}

function contentLength(response: Response): number | null {
  // With an encoding it counts other bytes than those that arrive here.
  const text = response.headers.has("content-encoding") ? null : response.headers.get("content-length");
  return text !== null && /^\d+$/.test(text) ? Number(text) : null;
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal.addEventListener("abort", stop, { once: true });
  });
}

async function drop(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => undefined);
}

/** One URL. */
class HttpTransport implements Transport {
  readonly #url: URL;
  readonly #name: string;
  readonly #headers: Record<string, string>;
  /** Set when the first answer, or the manifest, told it. */
  version: FileVersion | null = null;

  constructor(url: URL, name: string, headers: Record<string, string>) {
    this.#url = url;
    this.#name = name;
    this.#headers = headers;
  }

  /** One request. The answer is 200 or 206; `null`: there is no such file. */
  async request(method: "GET" | "HEAD", range: [number, number] | null, signal: AbortSignal): Promise<Response | null> {
    const headers = new Headers(this.#headers);
    if (range !== null) headers.set("Range", `bytes=${range[0]}-${range[1] - 1}`);
    let response: Response;
    try {
      response = await fetch(this.#url, { method, headers, signal, cache: "no-store" });
    } catch (thrown) {
      signal.throwIfAborted();
      await this.#explainBlocked(signal, thrown);
      throw new Interrupted(thrown instanceof Error ? thrown.message : String(thrown));
    }
    const { status } = response;
    // Many development servers send a page, with status 200, for what is not there. No model has pages.
    const isPage = /^text\/html\b/.test(response.headers.get("content-type") ?? "");
    if (!isPage && (status === 200 || status === 206 || (status === 416 && range?.[0] === 0))) return response;
    await drop(response);
    if (status === 404 || status === 410 || response.ok) return null;
    if (TRANSIENT.has(status)) throw new Interrupted(`status ${status}`);
    const advice = status === 401 || status === 403 ? " (access may need a token: see `headers`)" : "";
    throw new GirihError("network", `${this.#url.href}: status ${status}, expected 200 or 206${advice}`);
  }

  /** A browser hides why a fetch from another origin failed. A server that answers an opaque request is there. */
  async #explainBlocked(signal: AbortSignal, cause: unknown): Promise<void> {
    if (this.#url.origin === globalThis.location.origin || !this.#url.protocol.startsWith("http")) return;
    try {
      await fetch(this.#url, { method: "HEAD", mode: "no-cors", signal, cache: "no-store" });
    } catch {
      signal.throwIfAborted();
      return; // not there at all: a matter of the network
    }
    const headers = Object.keys(this.#headers).join(", ");
    throw new GirihError("blocked-by-cors", `${this.#url.origin} does not let this page (${globalThis.location.origin}) read ` +
      `${this.#url.href}: the server must send Access-Control-Allow-Origin` +
      (headers === "" ? "" : `, and Access-Control-Allow-Headers with ${headers}`) +
      ". The browser hides further details; its console has them", { cause });
  }

  /** A request with retries. */
  async persist(method: "GET" | "HEAD", range: [number, number] | null, signal: AbortSignal): Promise<Response | null> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.request(method, range, signal);
      } catch (thrown) {
        await this.#wait(tries, thrown, 0, range === null ? null : range[1] - range[0], signal);
      }
    }
  }

  /** Waits before another attempt, or gives up. */
  async #wait(tries: number, thrown: unknown, received: number, wanted: number | null, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!(thrown instanceof Interrupted)) throw thrown;
    if (tries >= TRIES) {
      const expected = wanted === null ? "" : `: received ${received} bytes of ${wanted}`;
      throw new GirihError("network", `${this.#url.href}${expected}, given up after ${tries} attempts (${thrown.message})`);
    }
    await delay(BACKOFF_MS * 2 ** (tries - 1), signal);
  }

  async *stream(start: number, end: number, signal: AbortSignal, opened?: Response): AsyncGenerator<Uint8Array> {
    yield* this.#resumed(start, end, signal, false, opened);
  }

  async *streamWhole(start: number, end: number, signal: AbortSignal, opened?: Response): AsyncGenerator<Uint8Array> {
    yield* this.#resumed(start, end, signal, true, opened);
  }

  async *#resumed(
    start: number, end: number, signal: AbortSignal, whole: boolean, opened?: Response,
  ): AsyncGenerator<Uint8Array> {
    const blockSize = this.version?.blockSize ?? BLOCK_BYTES;
    let at = start;
    let mark = start;
    let response = opened;
    for (let tries = 1; ; tries++) {
      try {
        const range: [number, number] | null = whole ? null : [at, end];
        response ??= (await this.request("GET", range, signal)) ?? this.#gone();
        signal.throwIfAborted();
        if (response.status === 200 && !whole && !(at === 0 && contentLength(response) === end)) {
          throw new RangeIgnored(response);
        }
        let skip = this.#check(response, at, whole);
        const before = at;
        for await (const received of chunks(response, signal)) {
          const chunk = received.subarray(skip, skip + end - at);
          skip = Math.max(0, skip - received.length);
          if (chunk.length === 0) continue;
          at += chunk.length;
          yield chunk;
          if (at === end) return;
        }
        if (at === before) throw new Interrupted("the server closed the connection");
        tries = 0; // a shorter answer than was asked for is allowed
      } catch (thrown) {
        if (at - mark >= blockSize) {
          tries = 1;
          mark = at;
        }
        await this.#wait(tries, thrown, at - start, end - start, signal);
      }
      response = undefined;
    }
  }

  #gone(): never {
    throw new GirihError("not-found", `${this.#url.href}: status 404; it was there when the download began`);
  }

  /** Whether an answer belongs to the version of the file. Returns how many of its first bytes are to be skipped. */
  #check(response: Response, at: number, whole: boolean): number {
    const found = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
    const { size, identity } = this.version ?? { size: null, identity: "" };
    const total = response.status === 200 ? contentLength(response) : response.status === 206 ? found?.[2] : 0;
    if (size !== null && total !== null && total !== undefined && Number(total) !== size) {
      throw new GirihError("integrity", `${this.#name}: the server has ${total} bytes, expected ${size}`);
    }
    const served = identityOf(response);
    if (!identity.startsWith("sha256-") && identity !== "" && served !== "" && served !== identity) {
      throw new GirihError("integrity", `${this.#name} changed on the server during the download: version ${served}, ` +
        `expected ${identity}. Load it again`);
    }
    if (response.status === 206 && found !== null && Number(found[1]) !== at) {
      throw new GirihError("network", `${this.#url.href}: bytes from ${found[1]} were sent, asked for bytes from ${at}`);
    }
    return whole || response.status === 200 ? at : 0;
  }
}

/** The body of a response. A connection that stalls is an interruption. */
async function* chunks(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const stalled = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Interrupted(`nothing was received for ${STALL_MS / 1000} s`)), STALL_MS);
      });
      try {
        const { done, value } = await Promise.race([reader.read(), stalled]);
        if (done) return;
        yield value;
      } catch (thrown) {
        signal.throwIfAborted();
        throw thrown instanceof TypeError ? new Interrupted(thrown.message) : thrown;
      } finally {
        clearTimeout(timer);
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

export interface HttpSourceOptions {
  headers: Record<string, string>;
  cache: "prefer" | "require" | "none";
  store: BlockStore | null;
  signal: AbortSignal;
  onProgress: (event: ProgressEvent) => void;
}

/** The files of a model on a server. */
export class HttpSource implements ModelSource {
  readonly #folder: URL;
  readonly #options: HttpSourceOptions;
  readonly #stored: StoredModel | null;
  readonly #close: () => void;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  readonly #files = new Map<string, Promise<BlockFile | null>>();
  readonly #only: string | null;
  #manifest: Manifest | null = null;
  /** The names of the files, where they are known. */
  list?: () => string[];

  private constructor(
    folder: URL, only: string | null, stored: StoredModel | null, close: () => void, options: HttpSourceOptions,
  ) {
    this.#folder = folder;
    this.#only = only;
    this.#stored = stored;
    this.#close = close;
    this.#options = options;
    this.#signal = AbortSignal.any([options.signal, this.#abort.signal]);
    if (only !== null) this.list = () => [only];
  }

  /** A folder, or one `.gguf` file, which may be a part of a split one. */
  static async open(at: string, options: HttpSourceOptions): Promise<HttpSource> {
    const folder = new URL(at);
    folder.hash = "";
    let only: string | null = null;
    if (folder.pathname.toLowerCase().endsWith(".gguf")) {
      const cut = folder.pathname.lastIndexOf("/") + 1;
      only = decodeURIComponent(folder.pathname.slice(cut));
      folder.pathname = folder.pathname.slice(0, cut);
    } else if (!folder.pathname.endsWith("/")) {
      folder.pathname += "/";
    }
    const { store, cache } = options;
    if (cache === "none" || store === null) {
      if (cache === "require") throw noCache("there is no cache");
      return new HttpSource(folder, only, null, () => undefined, options);
    }
    // A token in the query is not part of what the model is.
    const { model, close } = await store.model(folder.origin + folder.pathname + (only ?? ""));
    return new HttpSource(folder, only, model, close, options);
  }

  /** Reads a manifest; beside the model, where it may be missing, by default. */
  async useManifest(manifest: string | Manifest | false | undefined): Promise<Manifest | null> {
    if (manifest === false) return null;
    if (typeof manifest === "object") {
      this.#manifest = checkManifest(manifest, "manifest");
    } else {
      const url = manifest === undefined ? this.#url(MANIFEST_FILE) : new URL(manifest);
      const file = await this.#open(manifest ?? MANIFEST_FILE, url);
      if (file === null) {
        if (manifest !== undefined) throw new GirihError("not-found", `no manifest at ${manifest}: status 404`);
        return null;
      }
      if (file.size > WHOLE_BYTES) throw new GirihError("malformed-model", `${url.href} has ${file.size} bytes: too many`);
      this.#manifest = parseManifest(new TextDecoder().decode(await file.read(0, file.size)), url.href);
    }
    const names = Object.keys(this.#manifest.files);
    if (this.#only === null) this.list = () => names;
    return this.#manifest;
  }

  async size(file: string): Promise<number | null> {
    return (await this.#file(file))?.size ?? null;
  }

  async read(file: string, start: number, end: number): Promise<Uint8Array> {
    const found = await this.#file(file);
    if (found === null) throw new GirihError("not-found", `${this.#url(file).href}: status 404`);
    return found.read(start, end);
  }

  /** Files that were read, and whether any of their bytes came over the network. */
  async opened(): Promise<Map<string, boolean>> {
    const opened = new Map<string, boolean>();
    for (const [name, promise] of this.#files) {
      const file = await promise.catch(() => null);
      if (file !== null) opened.set(name, file.fetchedBytes > 0);
    }
    return opened;
  }

  /** Forgets a file that is not what it should be. */
  async discard(file: string): Promise<void> {
    await (await this.#files.get(file)?.catch(() => null))?.discard();
  }

  /** The model is loaded: from here it needs no network any more. */
  async complete(): Promise<void> {
    await this.#stored?.loaded();
  }

  /** Ends all transfers. */
  close(): void {
    this.#abort.abort(new GirihError("internal", "the source is closed"));
    this.#close();
  }

  #url(file: string): URL {
    const parts = file.split("/");
    if (parts.some((part) => part === "" || part === "." || part === "..")) {
      throw new GirihError("malformed-model", `"${file}" is no name of a file inside of the model's folder`);
    }
    const url = new URL(this.#folder);
    url.pathname += parts.map(encodeURIComponent).join("/");
    return url;
  }

  #file(name: string): Promise<BlockFile | null> {
    if (this.#only !== null && name !== this.#only && !isPartOf(name, this.#only)) return Promise.resolve(null);
    let file = this.#files.get(name);
    if (file === undefined) {
      file = this.#open(name, this.#url(name));
      file.catch(() => this.#files.delete(name));
      this.#files.set(name, file);
    }
    return file;
  }

  async #open(name: string, url: URL): Promise<BlockFile | null> {
    const transport = new HttpTransport(url, name, this.#options.headers);
    if (this.#manifest !== null) {
      const entry = this.#manifest.files[name];
      if (entry === undefined) return null;
      const { size, sha256, blockSize = BLOCK_BYTES, blocks = null } = entry;
      const hashes = blocks ?? (size <= blockSize && size > 0 ? [sha256] : null);
      return this.#blocks(transport, { name, size, identity: `sha256-${sha256}`, blockSize }, hashes);
    }
    const known = (await this.#stored?.version(name)) ?? null;
    if (known !== null || this.#stored?.isAbsent(name)) {
      const still = await this.#revalidate(transport, known);
      if (still !== undefined) return still === null ? null : this.#blocks(transport, still, null);
    }
    const response = await transport.persist("GET", [0, BLOCK_BYTES], this.#signal);
    if (response === null) {
      await this.#stored?.setAbsent(name);
      return null;
    }
    return this.#first(transport, name, response);
  }

  /** Whether the cached version is the server's. `undefined`: no, or it cannot be known without asking for bytes. */
  async #revalidate(transport: HttpTransport, known: FileVersion | null): Promise<FileVersion | null | undefined> {
    let response: Response | null;
    try {
      response = await transport.request("HEAD", null, this.#signal);
    } catch (thrown) {
      this.#signal.throwIfAborted();
      // Without a network what is here is what there is.
      return thrown instanceof Interrupted ? known : undefined;
    }
    if (response === null) return null;
    if (known === null) return undefined;
    const probe: Probe = { size: contentLength(response), identity: identityOf(response) };
    const same = probe.identity === known.identity && (probe.size === null || probe.size === known.size);
    return same ? known : undefined;
  }

  /** The answer to the request for the first block: it also tells the size. */
  async #first(transport: HttpTransport, name: string, response: Response): Promise<BlockFile> {
    const identity = identityOf(response);
    const ranged = response.status !== 200;
    const range = /^bytes (?:\d+-\d+|\*)\/(\d+)$/.exec(response.headers.get("content-range") ?? "");
    let size: number | null = range === null ? null : Number(range[1]);
    if (size === null && ranged) {
      // Content-Range is hidden from other origins unless the server exposes it; Content-Length is not.
      const head = await transport.persist("HEAD", null, this.#signal);
      size = head === null ? null : contentLength(head);
    }
    if (size === null && !ranged) size = contentLength(response);
    if (size === null && ranged) {
      await drop(response);
      throw new GirihError("range-unsupported", `${name}: the server does not tell the size of the file. It must expose ` +
        "Content-Range (Access-Control-Expose-Headers) or answer HEAD with Content-Length");
    }
    if (size === null) {
      const bytes = await this.#collect(name, response);
      const file = await this.#blocks(transport, { name, size: bytes.length, identity, blockSize: BLOCK_BYTES }, null);
      await file.adoptBytes(bytes);
      return file;
    }
    const file = await this.#blocks(transport, { name, size, identity, blockSize: BLOCK_BYTES }, null);
    file.adopt(response, ranged);
    return file;
  }

  /** A body of unknown size. */
  async #collect(name: string, response: Response): Promise<Uint8Array<ArrayBuffer>> {
    const parts: Uint8Array[] = [];
    let size = 0;
    try {
      for await (const chunk of chunks(response, this.#signal)) {
        size += chunk.length;
        if (size > WHOLE_BYTES) {
          throw new GirihError("range-unsupported", `${name}: the server sends neither ranges nor a size, and more than ` +
            `${WHOLE_BYTES} bytes`);
        }
        parts.push(chunk);
      }
    } catch (thrown) {
      if (!(thrown instanceof Interrupted)) throw thrown;
      throw new GirihError("network", `${name}: received ${size} bytes of a number that the server does not tell ` +
        `(${thrown.message})`);
    }
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return bytes;
  }

  async #blocks(transport: HttpTransport, version: FileVersion, hashes: readonly string[] | null): Promise<BlockFile> {
    transport.version = version;
    const store = (await this.#stored?.file(version)) ?? null;
    const { cache, onProgress } = this.#options;
    if (store === null && cache === "require") throw noCache(`there is no room for ${version.name} (${version.size} bytes)`);
    const { name: file, size: total } = version;
    let loaded = 0;
    let fromCache = 0;
    let reported = -Infinity;
    const onBytes = (more: number, cached: number) => {
      loaded = Math.min(total, loaded + more);
      fromCache += cached;
      const now = performance.now();
      if (loaded < total && now - reported < REPORT_MS) return;
      reported = now;
      onProgress({ stage: "download", file, loaded, total, fromCache });
    };
    return new BlockFile({ version, transport, hashes, store, mustStore: cache === "require", signal: this.#signal, onBytes });
  }
}
