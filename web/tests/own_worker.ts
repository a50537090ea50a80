// A worker of the page's own, with the engine in its thread.
import { Girih } from "../girih/index.js";

const scope = globalThis as unknown as { postMessage(message: unknown): void };
try {
  const girih = await Girih.create({ worker: false, selfTest: false });
  const model = await girih.loadModel("/models/fable-5m/");
  let text = "";
  for await (const piece of model.generate("Once upon a time", { temperature: 0, maxTokens: 8 })) text += piece;
  await girih.dispose();
  scope.postMessage({ text });
} catch (thrown) {
  scope.postMessage({ error: String(thrown) });
}
