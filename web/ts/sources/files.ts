// Models from files of the user: chosen, dropped, or in a folder that the page may read.
import { GirihError } from "../errors.js";
import type { ModelSource } from "../types.js";

/** A file and its path inside what was chosen. */
export interface NamedFile {
  path: string;
  file: File;
}

/** Names of files as the page has them: with the path inside of a chosen folder, if there is one. */
export function nameFiles(files: Iterable<File>): NamedFile[] {
  return Array.from(files, (file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/** The files of a model. The folder that holds `config.json` is the model's, wherever it lies in what was chosen. */
export class FilesSource implements ModelSource {
  readonly #files: Map<string, File>;

  constructor(files: NamedFile[]) {
    if (files.length === 0) throw new GirihError("bad-argument", "no files: expected the files of a model, or one .gguf file");
    const configs = files.map(({ path }) => path).filter((path) => /(^|\/)config\.json$/.test(path));
    const depth = (path: string) => path.split("/").length;
    const config = configs.sort((a, b) => depth(a) - depth(b))[0];
    const folder = config === undefined ? "" : config.slice(0, -"config.json".length);
    const inside = files.filter(({ path }) => path.startsWith(folder));
    const named = inside.map(({ path, file }): [string, File] => [path.slice(folder.length), file]);
    // Without a configuration it can only be GGUF, which has no folders.
    this.#files = new Map(config === undefined ? named.map(([, file]) => [file.name, file]) : named);
  }

  /** All files of a folder and its subfolders. */
  static async ofFolder(folder: FileSystemDirectoryHandle): Promise<FilesSource> {
    const found: NamedFile[] = [];
    const walk = async (directory: FileSystemDirectoryHandle, prefix: string, depth: number): Promise<void> => {
      for await (const entry of directory.values()) {
        const path = prefix + entry.name;
        if (entry.kind === "file") found.push({ path, file: await (entry as FileSystemFileHandle).getFile() });
        else if (depth < 4) await walk(entry as FileSystemDirectoryHandle, `${path}/`, depth + 1);
      }
    };
    await walk(folder, "", 0).catch((thrown: unknown) => {
      throw new GirihError("not-found", `the folder "${folder.name}" cannot be read: ${String(thrown)}`, { cause: thrown });
    });
    return new FilesSource(found);
  }

  size(file: string): Promise<number | null> {
    return Promise.resolve(this.#files.get(file)?.size ?? null);
  }

  async read(file: string, start: number, end: number): Promise<Uint8Array> {
    const found = this.#files.get(file);
    if (found === undefined) throw new GirihError("not-found", `no file "${file}" among those given`);
    try {
      return new Uint8Array(await found.slice(start, end).arrayBuffer());
    } catch (thrown) {
      const message = `"${file}" cannot be read any more: changed, moved or removed since it was chosen`;
      throw new GirihError("not-found", message, { cause: thrown });
    }
  }

  list(): string[] {
    return [...this.#files.keys()];
  }
}
