// A test has a name and a function; the driver lists and runs them through `window.girihTests`.
import { GirihError, type ErrorCode } from "./package.js";

export class Test {
  readonly log: string[] = [];
  readonly #cleanups: (() => Promise<void> | void)[] = [];

  /** A line that is shown if the test fails. */
  note(...parts: unknown[]): void {
    this.log.push(parts.map((part) => (typeof part === "string" ? part : JSON.stringify(part))).join(" "));
  }

  /** Runs at the end, the last first, whatever happens. */
  after(cleanup: () => Promise<void> | void): void {
    this.#cleanups.push(cleanup);
  }

  async cleanUp(): Promise<void> {
    for (const cleanup of this.#cleanups.reverse()) await cleanup();
  }

  ok(condition: boolean, message: string): void {
    if (!condition) throw new Error(message);
  }

  equal<T>(found: T, wanted: T, what: string): void {
    const [a, b] = [show(found), show(wanted)];
    if (a !== b) throw new Error(`${what}: found ${a}, wanted ${b}`);
  }

  /** The error of a promise that must reject with a code. */
  async rejects(promise: Promise<unknown>, code: ErrorCode, message?: RegExp): Promise<GirihError> {
    const thrown = await this.thrown(promise);
    if (!(thrown instanceof GirihError)) throw new Error(`rejected with ${String(thrown)}, wanted a GirihError ${code}`);
    this.note(`${thrown.code}: ${thrown.message}`);
    if (thrown.code !== code) throw new Error(`rejected with ${thrown.code} (${thrown.message}), wanted ${code}`);
    if (message !== undefined && !message.test(thrown.message)) throw new Error(`"${thrown.message}" does not match ${message}`);
    return thrown;
  }

  /** What a promise rejects with. */
  async thrown(promise: Promise<unknown>): Promise<unknown> {
    let value: unknown;
    try {
      value = await promise;
    } catch (thrown) {
      return thrown;
    }
    throw new Error(`resolved with ${show(value)}, wanted a rejection`);
  }
}

function show(value: unknown): string {
  const plain = ArrayBuffer.isView(value) ? Array.from(value as Uint8Array) : value;
  return JSON.stringify(plain) ?? String(plain);
}

const tests = new Map<string, (t: Test) => Promise<void>>();

export function test(name: string, run: (t: Test) => Promise<void>): void {
  if (tests.has(name)) throw new Error(`two tests named ${name}`);
  tests.set(name, run);
}

interface Outcome {
  ok: boolean;
  message: string;
  log: string[];
}

declare global {
  interface Window {
    girihTests: { list(): Promise<string[]>; run(name: string): Promise<Outcome> };
  }
}

async function run(name: string): Promise<Outcome> {
  const body = tests.get(name);
  if (body === undefined) return { ok: false, message: `no test named ${name}`, log: [] };
  const t = new Test();
  // Whatever nobody awaited fails the test as well.
  const strays: string[] = [];
  const onRejection = (event: PromiseRejectionEvent) => strays.push(`unhandled rejection: ${describe(event.reason)}`);
  const onError = (event: ErrorEvent) => strays.push(`uncaught error: ${event.message}`);
  const onViolation = (event: SecurityPolicyViolationEvent) => strays.push(`content security policy: ${event.violatedDirective}, ${event.blockedURI}`);
  addEventListener("unhandledrejection", onRejection);
  addEventListener("error", onError);
  document.addEventListener("securitypolicyviolation", onViolation);
  let message = "";
  try {
    await body(t);
  } catch (thrown) {
    message = describe(thrown);
  }
  try {
    await t.cleanUp();
    await new Promise((resolve) => setTimeout(resolve, 0)); // rejections are told in a task of their own
  } catch (thrown) {
    message ||= `cleaning up: ${describe(thrown)}`;
  }
  removeEventListener("unhandledrejection", onRejection);
  removeEventListener("error", onError);
  document.removeEventListener("securitypolicyviolation", onViolation);
  message ||= strays.join("\n");
  return { ok: message === "", message, log: t.log };
}

function describe(thrown: unknown): string {
  if (thrown instanceof GirihError) return `${thrown.code}: ${thrown.stack ?? thrown.message}`;
  return thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
}

export function expose(): void {
  window.girihTests = { list: async () => [...tests.keys()], run };
}
