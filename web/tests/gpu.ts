// As much of WebGPU as tests need; TypeScript's own types lack it.
interface TestBuffer {
  mapAsync(mode: number): Promise<void>;
  getMappedRange(): ArrayBuffer;
  unmap(): void;
  destroy(): void;
}

export interface TestDevice extends GPUDevice {
  readonly features: ReadonlySet<string>;
  readonly lost: Promise<unknown>;
  readonly queue: { writeBuffer(buffer: TestBuffer, offset: number, data: Uint32Array): void; submit(commands: object[]): void };
  createBuffer(descriptor: { size: number; usage: number }): TestBuffer;
  createCommandEncoder(): {
    copyBufferToBuffer(from: TestBuffer, fromOffset: number, to: TestBuffer, toOffset: number, size: number): void;
    finish(): object;
  };
  destroy(): void;
}

interface TestAdapter {
  readonly features: ReadonlySet<string>;
  readonly limits: Record<string, number>;
  requestDevice(descriptor?: { requiredFeatures?: string[]; requiredLimits?: Record<string, number> }): Promise<TestDevice>;
}

/** A device as a page would make it, with what the adapter has. */
export async function pageDevice(): Promise<TestDevice> {
  const { gpu } = navigator as unknown as { gpu: { requestAdapter(): Promise<TestAdapter | null> } };
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error("no adapter");
  const wanted = ["subgroups", "shader-f16", "timestamp-query"].filter((feature) => adapter.features.has(feature));
  const limits = ["maxStorageBuffersPerShaderStage", "maxStorageBufferBindingSize", "maxBufferSize", "maxComputeWorkgroupStorageSize"];
  const requiredLimits = Object.fromEntries(limits.map((name) => [name, adapter.limits[name] ?? 0]));
  return adapter.requestDevice({ requiredFeatures: wanted, requiredLimits });
}

/** What a buffer of a device gives back. */
export async function roundTrip(device: TestDevice, value: number): Promise<number> {
  const from = device.createBuffer({ size: 4, usage: 0x4 | 0x8 }); // COPY_SRC | COPY_DST
  const to = device.createBuffer({ size: 4, usage: 0x1 | 0x8 }); // MAP_READ | COPY_DST
  device.queue.writeBuffer(from, 0, Uint32Array.of(value));
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(from, 0, to, 0, 4);
  device.queue.submit([encoder.finish()]);
  await to.mapAsync(1);
  const found = new Uint32Array(to.getMappedRange())[0] ?? NaN;
  to.unmap();
  from.destroy();
  to.destroy();
  return found;
}
