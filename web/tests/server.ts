// What tests know about the server.

/** A request that the server answered. */
export interface Logged {
  method: string;
  path: string;
  range: string | null;
  origin: number;
  status: number;
  bytes: number;
}

export const MODEL = "/models/fable-5m/";
/** A mixture of experts. */
export const MIXTURE = "/models/fable-moe/";
export const PROMPT = "Once upon a time";

async function json<T>(path: string): Promise<T> {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  return (await response.json()) as T;
}

/** What the server was asked for since now: all of it, or paths that begin or end with `part`. */
export async function watchRequests(): Promise<(part?: string) => Promise<Logged[]>> {
  const before = (await json<Logged[]>("/log")).length;
  return async (part = "") => (await json<Logged[]>(`/log?since=${before}`)).filter(({ path }) => path.startsWith(part) || path.endsWith(part));
}

/** Bytes of files; what a server says about one that is not there does not count. */
export function bytesOf(log: Logged[]): number {
  return log.reduce((sum, { status, bytes }) => (status < 300 ? sum + bytes : sum), 0);
}

/** The server's second origin, with a slash at its end. */
export async function secondOrigin(): Promise<string> {
  const origin = (await json<string[]>("/origins"))[1];
  if (origin === undefined) throw new Error("the server has one origin");
  return origin;
}

export async function bytes(path: string): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** A file of the server as a file of the user. */
export async function file(path: string): Promise<File> {
  return new File([await bytes(path)], path.slice(path.lastIndexOf("/") + 1));
}

export interface Golden {
  greedy: { prompt: string; prompt_ids: number[]; new_token_ids: number[]; text: string }[];
  chat_greedy: { messages: { role: string; content: string }[]; prompt_ids: number[]; new_token_ids: number[]; text: string };
}

/** What an independent implementation computed for a model. */
export function golden(model = "fable-5m"): Promise<Golden> {
  return json<Golden>(`/goldens/trained/${model}/golden.json`);
}

export async function sha256(data: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
