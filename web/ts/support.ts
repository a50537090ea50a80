// Whether there is WebGPU here, and if not, what to do.
import type { Support } from "./types.js";

/** As much of WebGPU as is asked here; TypeScript's own types lack it. */
interface AdapterSource {
  requestAdapter(options?: { powerPreference?: string }): Promise<{
    readonly features: ReadonlySet<string>;
    readonly info?: AdapterInfo;
  } | null>;
}
interface AdapterInfo {
  readonly architecture: string;
}

function gpu(): AdapterSource | undefined {
  return (navigator as { gpu?: AdapterSource }).gpu;
}

/** Why there is no WebGPU in this thread; `null` if there is. */
export function webgpuAdvice(): string | null {
  if (gpu() !== undefined) return null;
  if (!globalThis.isSecureContext) {
    return `WebGPU needs a secure context: serve the page over https, or from localhost (this is ${globalThis.location.origin})`;
  }
  const inWorker = typeof document === "undefined";
  return `this browser has no WebGPU${inWorker ? " in workers (say `worker: false`, or update it)" : ""}: use a current ` +
    "Chrome, Edge, Firefox or Safari, and see that hardware acceleration is on";
}

/** The family of the GPU as the browser names it; empty if it does not. */
export async function architectureOf(device: GPUDevice | undefined, powerPreference: string | undefined): Promise<string> {
  const info = device === undefined
    ? (await gpu()?.requestAdapter({ powerPreference }))?.info
    : (device as { adapterInfo?: AdapterInfo }).adapterInfo;
  return info?.architecture ?? "";
}

/** What this browser offers. Makes no device. */
export async function support(): Promise<Support> {
  const opfs = typeof navigator.storage?.getDirectory === "function";
  const reason = webgpuAdvice();
  if (reason !== null) return { webgpu: false, subgroups: false, f16: false, opfs, reason };
  const adapter = (await gpu()?.requestAdapter().catch(() => null)) ?? null;
  if (adapter === null) {
    const none = "WebGPU gives no adapter: hardware acceleration may be off, or the driver is on the browser's blocklist";
    return { webgpu: false, subgroups: false, f16: false, opfs, reason: none };
  }
  return { webgpu: true, subgroups: adapter.features.has("subgroups"), f16: adapter.features.has("shader-f16"), opfs };
}
