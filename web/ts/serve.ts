// The worker's end of the messages.
import type { EngineModule } from "./engine.js";
import { GirihError } from "./errors.js";
import { EngineHost, withSource } from "./host.js";
import { fromWire, toWire, transferables, type Calls, type FromWorker, type LoadArgs, type Method, type ToWorker } from "./protocol.js";
import type { ModelSource } from "./types.js";

/** What is used of a worker's global scope. */
export interface Port {
  postMessage(message: FromWorker, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
}

/** Answers calls that come through `port` with an engine of its own. */
export function serve(port: Port, loadModule: (wasmUrl?: string) => Promise<EngineModule>): void {
  const post = (message: FromWorker, transfer: Transferable[] = []) => port.postMessage(message, transfer);
  const host = new EngineHost({
    notice: (notice) => post({ kind: "notice", notice }),
    ended: (error, event) => post({ kind: "ended", error: toWire(error), event }),
  }, loadModule);
  const running = new Map<number, AbortController>();
  const replies = new Map<number, { resolve(value: unknown): void; reject(thrown: unknown): void }>();
  let nextReply = 1;

  /** A source of the page. */
  const proxy = (source: number, list: string[] | null): ModelSource => {
    const ask = <T>(message: (id: number) => FromWorker): Promise<T> =>
      new Promise((resolve, reject) => {
        const id = nextReply++;
        replies.set(id, { resolve: (value) => resolve(value as T), reject });
        post(message(id));
      });
    return {
      size: (file) => ask((id) => ({ kind: "source-size", id, source, file })),
      read: (file, start, end) => ask((id) => ({ kind: "source-read", id, source, file, start, end })),
      ...(list === null ? {} : { list: () => list }),
    };
  };

  const answer = async (id: number, method: Method, args: Calls[Method]["args"]): Promise<void> => {
    const controller = new AbortController();
    running.set(id, controller);
    try {
      const value = await host.call(method, method === "load" ? withSource(args as LoadArgs, proxy) : args, {
        signal: controller.signal,
        onEvent: (event: unknown) => post({ kind: "event", id, event }),
      });
      post({ kind: "result", id, value }, transferables(value));
    } catch (thrown) {
      post({ kind: "error", id, error: toWire(thrown) });
    } finally {
      running.delete(id);
    }
  };

  port.addEventListener("message", ({ data }) => {
    switch (data.kind) {
      case "call":
        void answer(data.id, data.method, data.args);
        break;
      case "cancel":
        running.get(data.id)?.abort();
        break;
      case "close":
        void host.close(new GirihError("disposed", "the engine was disposed")).finally(() => post({ kind: "closed" }));
        break;
      case "source-reply":
        replies.get(data.id)?.resolve(data.value);
        replies.delete(data.id);
        break;
      case "source-error":
        replies.get(data.id)?.reject(fromWire(data.error));
        replies.delete(data.id);
        break;
    }
  });
}
