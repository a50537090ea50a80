// A worker with the package's own messages and host around a made-up engine.
import { serve, type Port } from "../girih/serve.js";
import { fakeEngine } from "./fake_engine.js";

serve(globalThis as unknown as Port, async () => fakeEngine);
