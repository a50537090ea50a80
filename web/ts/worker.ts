// The worker that runs the engine.
import { loadEngine } from "./engine.js";
import { serve, type Port } from "./serve.js";

serve(globalThis as unknown as Port, loadEngine);
