// A remote file as blocks: fetched when they are read, with a few ahead, checked as they arrive, kept where there is room.
import { GirihError } from "../errors.js";
import { sha256 } from "../manifest.js";
import { noCache, type FileVersion, type StoredFile } from "./opfs.js";

/** Blocks that are fetched beyond those of a read, in the same request. */
const READ_AHEAD = 4;
/** Bytes of blocks that stay in memory. */
const RECENT_BYTES = 32 << 20;
/** A file that a server sends only as a whole is kept in memory up to this size. */
export const WHOLE_BYTES = 64 << 20;

/** The server ignored the range and sends the whole file. */
export class RangeIgnored {
  constructor(readonly response: Response) {}
}

/** Where the bytes of one version of a file come from. */
export interface Transport {
  /** The bytes from `start` to before `end`, resumed where a transfer breaks. Throws {@link RangeIgnored}. */
  stream(start: number, end: number, signal: AbortSignal, opened?: Response): AsyncGenerator<Uint8Array>;
  /** The same of a server that ignores ranges. */
  streamWhole(start: number, end: number, signal: AbortSignal, opened?: Response): AsyncGenerator<Uint8Array>;
}

export interface BlockFileOptions {
  version: FileVersion;
  transport: Transport;
  /** sha256 of each block, if they are known. */
  hashes: readonly string[] | null;
  store: StoredFile | null;
  /** A block that cannot be kept is an error. */
  mustStore: boolean;
  signal: AbortSignal;
  /** Called with bytes that are here now, and how many of them came from the cache. */
  onBytes: (loaded: number, fromCache: number) => void;
}

interface Arrival {
  promise: Promise<Uint8Array<ArrayBuffer>>;
  resolve(block: Uint8Array<ArrayBuffer>): void;
  reject(thrown: unknown): void;
}

function arrival(): Arrival {
  let resolve!: Arrival["resolve"];
  let reject!: Arrival["reject"];
  const promise = new Promise<Uint8Array<ArrayBuffer>>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => undefined); // nobody may be waiting for a block that was read ahead
  return { promise, resolve, reject };
}

export class BlockFile {
  readonly #o: BlockFileOptions;
  /** Blocks under way. */
  readonly #pending = new Map<number, Arrival>();
  /** Blocks in memory, the least recently used first. */
  readonly #recent = new Map<number, Uint8Array<ArrayBuffer>>();
  /** Blocks from the cache that were counted. */
  readonly #counted = new Set<number>();
  /** The server sends only the whole file; then nothing is dropped from memory unless it is stored. */
  #whole = false;
  /** The transfer of the whole file, while it runs. */
  #wholeTransfer: Promise<void> | null = null;
  /** Bytes that came over the network. */
  fetchedBytes = 0;

  constructor(options: BlockFileOptions) {
    this.#o = options;
  }

  get size(): number {
    return this.#o.version.size;
  }

  /** Takes the response of the first request, which asked for block 0. */
  adopt(response: Response, ranged: boolean): void {
    if (this.size === 0 || this.#has(0)) {
      void response.body?.cancel().catch(() => undefined);
    } else if (ranged) {
      this.#start(0, 0, response);
    } else {
      this.#startWhole(response);
    }
  }

  /** Takes the whole file. */
  async adoptBytes(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#whole = true;
    for (let index = 0; index < this.#count; index++) {
      await this.#arrived(index, bytes.slice(this.#begin(index), this.#begin(index) + this.#length(index)));
    }
    this.fetchedBytes = bytes.length;
    this.#o.onBytes(bytes.length, 0);
  }

  /** The bytes from `start` to before `end`. */
  async read(start: number, end: number): Promise<Uint8Array> {
    const { name, blockSize } = this.#o.version;
    if (!(start >= 0 && start <= end && end <= this.size)) {
      throw new GirihError("malformed-model", `${name}: bytes ${start} to ${end} were asked for, the file has ${this.size}`);
    }
    const bytes = new Uint8Array(end - start);
    if (start === end) return bytes;
    const first = Math.floor(start / blockSize);
    const last = Math.floor((end - 1) / blockSize);
    this.#request(first, last);
    for (let index = first; index <= last; index++) {
      const from = Math.max(start, this.#begin(index));
      const to = Math.min(end, this.#begin(index) + this.#length(index));
      bytes.set(await this.#piece(index, from - this.#begin(index), to - this.#begin(index)), from - start);
    }
    return bytes;
  }

  /** Forgets all blocks, here and in the cache. */
  async discard(): Promise<void> {
    this.#recent.clear();
    await this.#o.store?.clear();
  }

  get #count(): number {
    return Math.ceil(this.size / this.#o.version.blockSize);
  }

  #begin(index: number): number {
    return index * this.#o.version.blockSize;
  }

  #length(index: number): number {
    return Math.min(this.#o.version.blockSize, this.size - this.#begin(index));
  }

  #has(index: number): boolean {
    return this.#recent.has(index) || this.#pending.has(index) || (this.#o.store?.has(index) ?? false);
  }

  /** Sees to it that the blocks are here or under way. */
  #request(first: number, last: number): void {
    for (let index = first; index <= last; index++) {
      if (this.#has(index)) continue;
      if (this.#whole) return this.#startWhole();
      let end = index;
      while (end < last && !this.#has(end + 1)) end++;
      if (end === last) {
        const limit = Math.min(last + READ_AHEAD, this.#count - 1);
        while (end < limit && !this.#has(end + 1)) end++;
      }
      this.#start(index, end);
      index = end;
    }
  }

  async #piece(index: number, start: number, end: number): Promise<Uint8Array> {
    for (;;) {
      const pending = this.#pending.get(index);
      const block = pending === undefined ? this.#recent.get(index) : await pending.promise;
      if (block !== undefined) {
        this.#keep(index, block);
        return block.subarray(start, end);
      }
      const stored = (await this.#o.store?.read(index, start, end)) ?? null;
      if (stored !== null) {
        if (!this.#counted.has(index)) {
          this.#counted.add(index);
          this.#o.onBytes(this.#length(index), this.#length(index));
        }
        return stored;
      }
      // Evicted meanwhile, or dropped from memory.
      this.#request(index, index);
      if (this.#wholeTransfer !== null && !this.#pending.has(index)) await this.#wholeTransfer;
    }
  }

  #keep(index: number, block: Uint8Array<ArrayBuffer>): void {
    this.#recent.delete(index);
    this.#recent.set(index, block);
    const limit = Math.max(2 * READ_AHEAD, Math.floor(RECENT_BYTES / this.#o.version.blockSize));
    for (const old of this.#recent.keys()) {
      if (this.#recent.size <= limit) break;
      if (!this.#whole || this.#o.store?.has(old)) this.#recent.delete(old);
      else break;
    }
  }

  #start(first: number, last: number, opened?: Response): void {
    const { transport, signal } = this.#o;
    const stop = this.#begin(last) + this.#length(last);
    void this.#receive(first, last, transport.stream(this.#begin(first), stop, signal, opened));
  }

  #startWhole(opened?: Response): void {
    const { transport, signal, store, version } = this.#o;
    this.#whole = true;
    if (this.#wholeTransfer !== null) {
      void opened?.body?.cancel().catch(() => undefined);
      return;
    }
    if (store === null && version.size > WHOLE_BYTES) {
      const thrown = this.#tooLargeForMemory();
      void opened?.body?.cancel().catch(() => undefined);
      this.#fail(0, this.#count - 1, thrown);
      return;
    }
    let first = 0;
    while (this.#has(first) && !this.#pending.has(first)) first++;
    const stream = transport.streamWhole(this.#begin(first), this.size, signal, opened);
    this.#wholeTransfer = this.#receive(first, this.#count - 1, stream).finally(() => {
      this.#wholeTransfer = null;
    });
  }

  #tooLargeForMemory(): GirihError {
    const { name, size } = this.#o.version;
    return new GirihError("range-unsupported", `${name} has ${size} bytes, the server ignores Range requests, and the file ` +
      `cannot be cached: without ranges a file must have at most ${WHOLE_BYTES} bytes or fit the cache`);
  }

  /** Cuts a stream into blocks. */
  async #receive(first: number, last: number, stream: AsyncGenerator<Uint8Array>): Promise<void> {
    for (let index = first; index <= last; index++) if (!this.#pending.has(index)) this.#pending.set(index, arrival());
    let index = first;
    try {
      let block = new Uint8Array(this.#length(index));
      let filled = 0;
      for await (const chunk of stream) {
        let at = 0;
        while (at < chunk.length) {
          const taken = Math.min(chunk.length - at, block.length - filled);
          block.set(chunk.subarray(at, at + taken), filled);
          at += taken;
          filled += taken;
          if (filled < block.length) continue;
          await this.#arrived(index, block);
          index++;
          if (index > last) break;
          block = new Uint8Array(this.#length(index));
          filled = 0;
        }
        this.fetchedBytes += chunk.length;
        this.#o.onBytes(chunk.length, 0);
      }
    } catch (thrown) {
      if (!(thrown instanceof RangeIgnored)) return this.#fail(index, last, thrown);
      // The same request, read as the whole file. Those who wait for its blocks wait on.
      this.#startWhole(thrown.response);
    }
  }

  #fail(first: number, last: number, thrown: unknown): void {
    for (let index = first; index <= last; index++) {
      const waiting = this.#pending.get(index) ?? arrival();
      this.#pending.delete(index);
      waiting.reject(thrown);
    }
    // Whoever asks next for a whole file that cannot be had is told the same.
    if (this.#whole && thrown instanceof GirihError && thrown.code === "range-unsupported") {
      for (let index = first; index <= last; index++) {
        const failed = arrival();
        failed.reject(thrown);
        this.#pending.set(index, failed);
      }
    }
  }

  async #arrived(index: number, block: Uint8Array<ArrayBuffer>): Promise<void> {
    const { version, hashes, store, mustStore } = this.#o;
    const wanted = hashes?.[index];
    if (wanted !== undefined) {
      const found = await sha256(block);
      if (found !== wanted) {
        throw new GirihError("integrity", `${version.name}, block ${index} (bytes ${this.#begin(index)} to ` +
          `${this.#begin(index) + block.length}): sha256 is ${found}, expected ${wanted}`);
      }
    }
    const kept = store !== null && (store.has(index) || (await store.write(index, block)));
    if (!kept && mustStore) throw noCache(`there is no room for block ${index} of ${version.name} (${version.size} bytes)`);
    if (!kept && this.#whole && version.size > WHOLE_BYTES) throw this.#tooLargeForMemory();
    this.#keep(index, block);
    this.#pending.get(index)?.resolve(block);
    this.#pending.delete(index);
  }
}
