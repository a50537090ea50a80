// What stays behind, and how much memory it takes.
import { Girih } from "./package.js";
import { test } from "./registry.js";
import { MODEL, PROMPT } from "./server.js";
import { engine, own } from "./setup.js";
import { pageDevice } from "./gpu.js";

interface Memory {
  usedJSHeapSize: number;
}

function heap(): number {
  (globalThis as { gc?: () => void }).gc?.();
  return (performance as unknown as { memory: Memory }).memory.usedJSHeapSize;
}

test("create_and_dispose_50_times_leaves_nothing", async (t) => {
  // Workers are counted where they are made and ended.
  let alive = 0;
  let most = 0;
  const Real = globalThis.Worker;
  t.after(() => void (globalThis.Worker = Real));
  globalThis.Worker = class extends Real {
    #alive = true;
    constructor(url: string | URL, options?: WorkerOptions) {
      super(url, options);
      most = Math.max(most, ++alive);
    }
    override terminate(): void {
      if (this.#alive) alive--;
      this.#alive = false;
      super.terminate();
    }
  };
  let before = 0;
  for (let i = 0; i < 50; i++) {
    const girih = await Girih.create({ selfTest: false });
    if (i % 10 === 0) await girih.loadModel("/models/nothing/").catch(() => undefined);
    await girih.dispose();
    if (i === 9) before = heap();
  }
  const grown = heap() - before;
  t.note(`the page's heap grew by ${grown} bytes in 40 rounds`);
  t.equal([alive, most], [0, 1], "workers left, and at most");
  t.ok(grown < 4 << 20, `the page's heap grew by ${grown} bytes`);
  // A handle that is open would keep the cache from being removed.
  const last = await engine(t);
  await last.cache.clear();
  t.equal(await last.cache.list(), [], "in the cache");
});

test("models_come_and_go_without_growth", async (t) => {
  const device = await pageDevice();
  t.after(() => device.destroy());
  let held = 0;
  const create = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = create(descriptor);
    held += descriptor.size;
    const destroy = buffer.destroy.bind(buffer);
    let here = true;
    buffer.destroy = () => {
      if (here) held -= descriptor.size;
      here = false;
      destroy();
    };
    return buffer;
  };
  const girih = await own(t, { device });
  const after: [number, number][] = [];
  for (let i = 0; i < 4; i++) {
    const story = await girih.loadModel(MODEL);
    await story.generate(PROMPT, { maxTokens: 4 }).result;
    await story.dispose();
    after.push([held, (await girih.stats()).heapBytes]);
  }
  t.note("bytes on the device and in the module after each round", after);
  const [buffers = 0, memory = 0] = after[1] ?? [];
  const [lastBuffers = Infinity, lastMemory = Infinity] = after[3] ?? [];
  t.ok(lastBuffers <= buffers + 65536, `memory on the device grew from ${buffers} to ${lastBuffers} bytes`);
  t.ok(lastMemory <= memory + (1 << 20), `memory of the module grew from ${memory} to ${lastMemory} bytes`);
  t.equal((await girih.stats()).models, 0, "models");
});

test("a_model_larger_than_the_limit_of_the_heap_fits_it", async (t) => {
  const girih = await own(t, { cache: "none" });
  const start = performance.now();
  const large = await girih.loadModel("/synthetic/llama-300mb/", { context: 64 });
  const { heapBytes, longestTaskMs } = await girih.stats();
  t.note(`${large.info.weightBytes} bytes of weights in ${((performance.now() - start) / 1000).toFixed(1)} s, heap ${heapBytes} bytes, ` +
    `longest message ${longestTaskMs} ms`);
  t.ok(large.info.weightBytes > 256 << 20, `the model has ${large.info.weightBytes} bytes, wanted more than 256 MiB`);
  t.ok(heapBytes <= 256 << 20, `the heap has ${heapBytes} bytes, wanted at most 256 MiB`);
  const result = await large.generate([1, 2, 3], { temperature: 0, maxTokens: 2 }).result;
  t.equal(result.tokenIds.length, 2, "tokens");
  t.ok((await girih.stats()).heapBytes <= 256 << 20, "the heap after writing");
});
