// Models from this computer: chosen or dropped folders and files.

import type { Source } from "./session.js";

/** The name of a folder or file for the visitor. */
function source(label: string, input: Source["input"]): Source {
  return { label, input, builtIn: false };
}

function fromFiles(files: File[]): Source | null {
  const [first] = files;
  if (first === undefined) {
    return null;
  }
  if (files.length === 1) {
    return source(first.name, first);
  }
  const [folder = ""] = first.webkitRelativePath.split("/");
  return source(folder === "" ? "chosen files" : folder, files);
}

/** The folder picker of the browser, where it has one. */
type PickDirectory = (options: { id: string; mode: "read" }) => Promise<FileSystemDirectoryHandle>;

/** Lets the visitor choose a folder; `null` if nothing was chosen. `input` is used where there is no picker. */
export async function chooseFolder(input: HTMLInputElement): Promise<Source | null> {
  const { showDirectoryPicker } = window as Window & { showDirectoryPicker?: PickDirectory };
  if (showDirectoryPicker === undefined) {
    return chooseFiles(input);
  }
  try {
    const handle = await showDirectoryPicker.call(window, { id: "model", mode: "read" });
    return source(handle.name, handle);
  } catch (failure) {
    if (failure instanceof DOMException && failure.name === "AbortError") {
      return null;
    }
    return chooseFiles(input); // pickers are forbidden in some frames
  }
}

/** Lets the visitor choose files; `null` if nothing was chosen. */
export function chooseFiles(input: HTMLInputElement): Promise<Source | null> {
  return new Promise((resolve) => {
    const ended = new AbortController();
    const end = (): void => {
      ended.abort();
      resolve(fromFiles([...(input.files ?? [])]));
      input.value = "";
    };
    input.addEventListener("change", end, { signal: ended.signal });
    input.addEventListener("cancel", end, { signal: ended.signal });
    input.click();
  });
}

/** Handles are newer than entries; entries are everywhere. */
type HandleItem = DataTransferItem & { getAsFileSystemHandle?: () => Promise<FileSystemHandle | null> };

/** What was dropped; `null` if it holds no file. Must be called within the event. */
export async function dropped(data: DataTransfer): Promise<Source | null> {
  const items = [...data.items].filter((item) => item.kind === "file") as HandleItem[];
  const plain = [...data.files];
  // All of it is asked for before anything is awaited: the list is emptied after the event.
  const entries = items.map((item) => item.webkitGetAsEntry());
  const handles = items.map((item) => item.getAsFileSystemHandle?.().catch(() => null));

  const [handle] = await Promise.all(handles.slice(0, 1));
  if (items.length === 1 && handle instanceof FileSystemDirectoryHandle) {
    return source(handle.name, handle);
  }
  const [entry] = entries;
  if (entries.length === 1 && entry?.isDirectory === true) {
    return source(entry.name, await filesOf(entry as FileSystemDirectoryEntry));
  }
  return fromFiles(plain);
}

/** The files of a folder, without those of its folders: a model lies flat. */
async function filesOf(folder: FileSystemDirectoryEntry): Promise<File[]> {
  const reader = folder.createReader();
  const files: File[] = [];
  for (;;) {
    // A reader gives at most a hundred entries at a time, and none at the end.
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) {
      return files;
    }
    for (const entry of some) {
      if (entry.isFile) {
        files.push(await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)));
      }
    }
  }
}
