// The package's worker in a browser with little room (`?room=bytes`), that refuses to write after some files
// (`?refuse=count`), or whose device is destroyed on request (a message on the channel `girih-tests-loss`).
import "../girih/worker.js";

const query = new URLSearchParams(location.search);

interface SyncFile {
  write(bytes: Uint8Array, options: object): number;
}
const { prototype } = (globalThis as unknown as { FileSystemSyncAccessHandle: { prototype: SyncFile } }).FileSystemSyncAccessHandle;
const write = prototype.write;
const refuse = Number(query.get("refuse") ?? Infinity);
let written = 0;
let large = 0;
prototype.write = function (bytes, options) {
  if (bytes.byteLength > 1 << 20 && ++large >= refuse) throw new DOMException("no room", "QuotaExceededError");
  written += bytes.byteLength;
  return write.call(this, bytes, options);
};

const room = query.get("room");
if (room !== null) {
  navigator.storage.estimate = async () => ({ usage: written, quota: Number(room) });
}

interface Device {
  destroy(): void;
}
interface Adapter {
  requestDevice(descriptor?: object): Promise<Device>;
}
const adapter = (globalThis as unknown as { GPUAdapter: { prototype: Adapter } }).GPUAdapter.prototype;
const request = adapter.requestDevice;
adapter.requestDevice = async function (descriptor) {
  const device = await request.call(this, descriptor);
  new BroadcastChannel("girih-tests-loss").onmessage = () => device.destroy();
  return device;
};
