// A worker that ends with an error as soon as it writes.
import { serve, type Port } from "../girih/serve.js";
import { fakeEngine } from "./fake_engine.js";

const scope = globalThis as unknown as Port;
let events = 0;
serve({
  postMessage: (message, transfer) => {
    scope.postMessage(message, transfer);
    if (message.kind === "event" && typeof message.event === "string" && ++events === 3) {
      setTimeout(() => {
        throw new Error("killed by the test");
      });
    }
  },
  addEventListener: (type, listener) => scope.addEventListener(type, listener),
}, async () => fakeEngine);
