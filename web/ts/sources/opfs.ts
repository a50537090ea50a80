// What is kept in the origin private file system: blocks of downloads, verdicts of self-tests, measured variants.
//
//   girih/verdicts/<hash>.json
//   girih/winners/<hash>.json                                   { text }
//   girih/models/<hash of the model's URL>/model.json           { url, complete }; its date is the last use
//   girih/models/<hash of the model's URL>/<hash of file>/file.json    { name, size, identity, blockSize }
//   girih/models/<hash of the model's URL>/<hash of file>/<index of block>
//
// A block is one small file: written whole or, if a tab dies while it writes, short and therefore not there. Nothing is
// held open between calls.
import { GirihError } from "../errors.js";
import { hex } from "../manifest.js";
import type { CachedModel, Notice } from "../types.js";

/** In a worker files are written through this; browsers' types for pages lack it. */
interface SyncHandle {
  truncate(size: number): void;
  write(bytes: Uint8Array, options: { at: number }): number;
  flush(): void;
  close(): void;
}
type WritableFile = FileSystemFileHandle & { createSyncAccessHandle?: () => Promise<SyncHandle> };

/** What identifies one version of one file. */
export interface FileVersion {
  name: string;
  size: number;
  /** ETag, Last-Modified or sha256: whatever the server or the manifest gave. */
  identity: string;
  blockSize: number;
}

interface ModelRecord {
  url: string;
  complete: boolean;
  /** Files that were asked for and are not there. */
  absent: string[];
}

/** Room that is left free for the page's own data. */
const RESERVE_BYTES = 16 << 20;

async function key(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return hex(new Uint8Array(digest, 0, 16));
}

function isMissing(thrown: unknown): boolean {
  return thrown instanceof DOMException && (thrown.name === "NotFoundError" || thrown.name === "NotReadableError");
}

function isFull(thrown: unknown): boolean {
  return thrown instanceof DOMException && thrown.name === "QuotaExceededError";
}

async function readFile(directory: FileSystemDirectoryHandle, name: string): Promise<File | null> {
  try {
    return await (await directory.getFileHandle(name)).getFile();
  } catch (thrown) {
    if (isMissing(thrown)) return null;
    throw thrown;
  }
}

async function readJson<T>(directory: FileSystemDirectoryHandle, name: string): Promise<{ value: T; date: number } | null> {
  const file = await readFile(directory, name);
  if (file === null) return null;
  try {
    return { value: JSON.parse(await file.text()) as T, date: file.lastModified };
  } catch {
    return null; // torn: as if it were not there
  }
}

async function writeFile(directory: FileSystemDirectoryHandle, name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const handle: WritableFile = await directory.getFileHandle(name, { create: true });
  try {
    if (handle.createSyncAccessHandle !== undefined) {
      const file = await handle.createSyncAccessHandle();
      try {
        file.truncate(0);
        const written = file.write(bytes, { at: 0 });
        if (written !== bytes.byteLength) throw new DOMException(`${written} of ${bytes.byteLength} bytes`, "QuotaExceededError");
        file.flush();
      } finally {
        file.close();
      }
    } else {
      const file = await handle.createWritable();
      try {
        await file.write(bytes);
        await file.close();
      } catch (thrown) {
        await file.abort().catch(() => undefined);
        throw thrown;
      }
    }
  } catch (thrown) {
    // Another tab is writing the same block: that is as good.
    if (thrown instanceof DOMException && thrown.name === "NoModificationAllowedError") return;
    await directory.removeEntry(name).catch(() => undefined);
    throw thrown;
  }
}

function writeJson(directory: FileSystemDirectoryHandle, name: string, value: unknown): Promise<void> {
  return writeFile(directory, name, new TextEncoder().encode(JSON.stringify(value)));
}

async function removeEntry(directory: FileSystemDirectoryHandle, name: string): Promise<void> {
  try {
    await directory.removeEntry(name, { recursive: true });
  } catch (thrown) {
    if (!isMissing(thrown)) throw thrown;
  }
}

/** The blocks of one version of one file that are here. */
export class StoredFile {
  readonly #directory: FileSystemDirectoryHandle;
  readonly #model: StoredModel;
  readonly #version: FileVersion;
  readonly #present: Set<number>;

  constructor(directory: FileSystemDirectoryHandle, model: StoredModel, version: FileVersion, present: Set<number>) {
    this.#directory = directory;
    this.#model = model;
    this.#version = version;
    this.#present = present;
  }

  has(index: number): boolean {
    return this.#present.has(index);
  }

  /** The bytes from `start` to before `end` of a block; `null` if the block is not here (any more). */
  async read(index: number, start: number, end: number): Promise<Uint8Array<ArrayBuffer> | null> {
    try {
      const file = this.#present.has(index) ? await readFile(this.#directory, String(index)) : null;
      const { size, blockSize } = this.#version;
      if (file !== null && file.size === Math.min(blockSize, size - index * blockSize)) {
        return new Uint8Array(await file.slice(start, end).arrayBuffer());
      }
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown;
    }
    this.#present.delete(index);
    return null;
  }

  /** Keeps a block. `false`: there is no room for it. */
  async write(index: number, bytes: Uint8Array<ArrayBuffer>): Promise<boolean> {
    if (!(await this.#model.room(bytes.byteLength))) return false;
    try {
      await writeFile(this.#directory, String(index), bytes);
    } catch (thrown) {
      if (isFull(thrown)) {
        await this.#model.full();
        return false;
      }
      if (isMissing(thrown)) return true; // the folder was removed from under us, by eviction in another tab
      throw thrown;
    }
    this.#present.add(index);
    return true;
  }

  /** Removes all blocks: they are not what they should be. */
  async clear(): Promise<void> {
    await Promise.all([...this.#present].map((index) => removeEntry(this.#directory, String(index))));
    this.#present.clear();
    await this.#model.incomplete();
  }
}

/** One model of the cache, open. */
export class StoredModel {
  readonly #store: BlockStore;
  readonly #directory: FileSystemDirectoryHandle;
  readonly key: string;
  #record: ModelRecord;
  /** Keeping stopped: there is no room. */
  #stopped = false;

  constructor(store: BlockStore, directory: FileSystemDirectoryHandle, key: string, record: ModelRecord) {
    this.#store = store;
    this.#directory = directory;
    this.key = key;
    this.#record = record;
  }

  /** The stored version of a file, whatever its identity; `null` if there is none. */
  async version(name: string): Promise<FileVersion | null> {
    try {
      const directory = await this.#directory.getDirectoryHandle(await key(name));
      return (await readJson<FileVersion>(directory, "file.json"))?.value ?? null;
    } catch (thrown) {
      if (isMissing(thrown)) return null;
      throw thrown;
    }
  }

  isAbsent(name: string): boolean {
    return this.#record.absent.includes(name);
  }

  async setAbsent(name: string): Promise<void> {
    if (this.isAbsent(name) || this.#stopped) return;
    this.#record.absent.push(name);
    await this.#save();
  }

  /** The blocks of a version of a file. Those of another version are removed. */
  async file(version: FileVersion): Promise<StoredFile | null> {
    if (this.#stopped) return null;
    const name = await key(version.name);
    const found = await this.version(version.name);
    const same = found !== null && found.size === version.size && found.identity === version.identity &&
      found.blockSize === version.blockSize;
    try {
      if (!same) {
        await removeEntry(this.#directory, name);
        this.#record = { ...this.#record, complete: false, absent: this.#record.absent.filter((a) => a !== version.name) };
      }
      const directory = await this.#directory.getDirectoryHandle(name, { create: true });
      if (!same) await writeJson(directory, "file.json", version);
      const present = new Set<number>();
      for await (const entry of directory.keys()) if (/^\d+$/.test(entry)) present.add(Number(entry));
      return new StoredFile(directory, this, version, present);
    } catch (thrown) {
      if (!isFull(thrown)) throw thrown;
      await this.full();
      return null;
    }
  }

  /** Whether `bytes` more fit, after other models made room. */
  async room(bytes: number): Promise<boolean> {
    if (this.#stopped) return false;
    if (await this.#store.makeRoom(bytes, this.key)) return true;
    await this.full();
    return false;
  }

  /** There is no room: keeping stops for this load. */
  async full(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    const { used, quota } = await this.#store.usage();
    const message = `no room to keep ${this.#record.url}: ${used} bytes are cached, the limit is ${quota} bytes`;
    this.#store.notice({ code: "cache-full", message });
  }

  /** The model was loaded: everything it needs is here, unless keeping stopped. */
  async loaded(): Promise<void> {
    this.#record = { ...this.#record, complete: !this.#stopped };
    await this.#save();
  }

  async incomplete(): Promise<void> {
    this.#record = { ...this.#record, complete: false };
    await this.#save();
  }

  async #save(): Promise<void> {
    try {
      await writeJson(this.#directory, "model.json", this.#record);
    } catch (thrown) {
      if (!isFull(thrown) && !isMissing(thrown)) throw thrown;
    }
  }
}

/** The cache of an origin. */
export class BlockStore {
  readonly #root: FileSystemDirectoryHandle;
  readonly #models: FileSystemDirectoryHandle;
  readonly #maxBytes: number;
  readonly notice: (notice: Notice) => void;
  /** Models that are being read: not to be evicted. */
  readonly #open = new Map<string, number>();
  /** Bytes that were found free and not yet written to. */
  #granted = 0;
  /** One change of the cache at a time. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(
    root: FileSystemDirectoryHandle, models: FileSystemDirectoryHandle, maxBytes: number, notice: (notice: Notice) => void,
  ) {
    this.#root = root;
    this.#models = models;
    this.#maxBytes = maxBytes;
    this.notice = notice;
  }

  /** The cache; `null` and a notice where there is none. */
  static async open(maxBytes: number, notice: (notice: Notice) => void): Promise<BlockStore | null> {
    try {
      const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("girih", { create: true });
      const models = await root.getDirectoryHandle("models", { create: true });
      const handle: object = FileSystemFileHandle.prototype;
      if (!("createWritable" in handle) && !("createSyncAccessHandle" in handle)) {
        throw new DOMException("files cannot be written in this thread: run the engine in a worker", "NotSupportedError");
      }
      return new BlockStore(root, models, maxBytes, notice);
    } catch (thrown) {
      const message = `downloads are not kept, there is no origin private file system here: ${String(thrown)}`;
      notice({ code: "cache-unavailable", message });
      return null;
    }
  }

  /** Opens a model and marks it as used now. Call the returned function when it is not read any more. */
  async model(url: string): Promise<{ model: StoredModel; close: () => void }> {
    const name = await key(url);
    const directory = await this.#models.getDirectoryHandle(name, { create: true });
    const found = await readJson<ModelRecord>(directory, "model.json");
    const record: ModelRecord = { url, complete: found?.value.complete ?? false, absent: found?.value.absent ?? [] };
    this.#open.set(name, (this.#open.get(name) ?? 0) + 1);
    let open = true;
    const close = () => {
      if (open) this.#open.set(name, (this.#open.get(name) ?? 1) - 1);
      open = false;
    };
    try {
      await writeJson(directory, "model.json", record); // its date is the last use
    } catch (thrown) {
      if (!isFull(thrown)) {
        close();
        throw thrown;
      }
    }
    return { model: new StoredModel(this, directory, name, record), close };
  }

  async list(): Promise<CachedModel[]> {
    const models: CachedModel[] = [];
    for await (const [name, entry] of this.#models.entries()) {
      if (entry.kind !== "directory") continue;
      const directory = entry as FileSystemDirectoryHandle;
      const record = await readJson<ModelRecord>(directory, "model.json");
      const bytes = await this.#bytes(directory);
      const { url = "", complete = false } = record?.value ?? {};
      models.push({ key: name, url, bytes, complete, lastUsed: new Date(record?.date ?? 0) });
    }
    return models.sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime());
  }

  /** By the names of the blocks: nothing is opened. */
  async #bytes(model: FileSystemDirectoryHandle): Promise<number> {
    let bytes = 0;
    for await (const entry of model.values()) {
      if (entry.kind !== "directory") continue;
      const directory = entry as FileSystemDirectoryHandle;
      const version = (await readJson<FileVersion>(directory, "file.json"))?.value;
      if (version === undefined) continue;
      for await (const name of directory.keys()) {
        if (/^\d+$/.test(name)) bytes += Math.max(0, Math.min(version.blockSize, version.size - Number(name) * version.blockSize));
      }
    }
    return bytes;
  }

  remove(key: string): Promise<void> {
    return this.#alone(() => this.#remove(key));
  }

  async #remove(key: string): Promise<void> {
    this.#granted = 0;
    await removeEntry(this.#models, key);
  }

  async clear(): Promise<void> {
    for (const { key } of await this.list()) await this.remove(key);
    await removeEntry(this.#root, "verdicts");
    await removeEntry(this.#root, "winners");
  }

  async usage(): Promise<{ used: number; quota: number }> {
    const used = (await this.list()).reduce((sum, { bytes }) => sum + bytes, 0);
    return { used, quota: Math.min(this.#maxBytes, used + (await this.#free())) };
  }

  /** Bytes that the browser still gives this origin. */
  async #free(): Promise<number> {
    const { usage = 0, quota = Number.MAX_SAFE_INTEGER } = await navigator.storage.estimate();
    return Math.max(0, quota - usage - RESERVE_BYTES);
  }

  /** Whether `bytes` more fit, after other models than `keep` were evicted, the least recently used first. */
  makeRoom(bytes: number, keep: string): Promise<boolean> {
    return this.#alone(async () => {
      if (this.#granted < bytes) await this.#grant(bytes, keep);
      if (this.#granted < bytes) return false;
      this.#granted -= bytes;
      return true;
    });
  }

  async #grant(bytes: number, keep: string): Promise<void> {
    let { used, quota } = await this.usage();
    if (used + bytes > quota) {
      const others = (await this.list()).filter(({ key }) => key !== keep && (this.#open.get(key) ?? 0) === 0).reverse();
      for (const { key, url, bytes: gained } of others) {
        await this.#remove(key);
        this.notice({ code: "cache-evicted", message: `${url} (${gained} bytes) was removed from the cache to make room` });
        ({ used, quota } = await this.usage());
        if (used + bytes <= quota) break;
      }
    }
    // Asked again after so many bytes: estimates are not free, and other tabs write too.
    this.#granted = Math.min(Math.max(0, quota - used), Math.max(bytes, 32 << 20));
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => undefined);
    return done;
  }
}

/** Kernels with their variants, as the self-tests of an adapter found them. */
export interface Verdict {
  right: string[];
  wrong: string[];
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}

/** The verdict about an adapter, package version, shaders and browser; `null` if it was not tested yet or cannot be known. */
export async function readVerdict(about: string): Promise<Verdict | null> {
  try {
    const directory = await folder("verdicts");
    const found = await readJson<Verdict>(directory, `${await key(about)}.json`);
    const right: unknown = found?.value.right;
    const wrong: unknown = found?.value.wrong;
    return isNames(right) && isNames(wrong) ? { right, wrong } : null;
  } catch {
    return null; // no private file system: tested each time
  }
}

/** Keeps a verdict where that is possible. */
export async function writeVerdict(about: string, verdict: Verdict): Promise<void> {
  try {
    await writeJson(await folder("verdicts"), `${await key(about)}.json`, verdict);
  } catch {
    // tested again next time
  }
}

/** The measured variants of an adapter, as the engine wrote them; `null` if there are none or they cannot be known. */
export async function readWinners(about: string): Promise<string | null> {
  try {
    const text: unknown = (await readJson<{ text: string }>(await folder("winners"), `${await key(about)}.json`))?.value.text;
    return typeof text === "string" ? text : null;
  } catch {
    return null; // no private file system: the usual variants
  }
}

/** Keeps measured variants where that is possible. */
export async function writeWinners(about: string, text: string): Promise<void> {
  try {
    await writeJson(await folder("winners"), `${await key(about)}.json`, { text });
  } catch {
    // measured again when the page asks for it
  }
}

async function folder(name: "verdicts" | "winners"): Promise<FileSystemDirectoryHandle> {
  const root = await (await navigator.storage.getDirectory()).getDirectoryHandle("girih", { create: true });
  return root.getDirectoryHandle(name, { create: true });
}

/** There is no cache, and one was demanded. */
export function noCache(why: string): GirihError {
  return new GirihError("quota", `cache: "require", but ${why}`);
}
