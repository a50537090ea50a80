// The device in plain words, its memory and counters, and the choice of simpler kernels.

import { byId, fillFacts } from "./dom.js";
import * as format from "./format.js";
import type { Caps, Counters, Tier } from "./girih/index.js";
import type { Session } from "./session.js";
import { set, settings } from "./store.js";

const TIERS: Record<Tier, string> = {
  t0: "t0: portable kernels",
  t1: "t1: kernels with subgroup operations",
  t2: "t2: kernels for matrix units",
  t3: "t3: kernels for large workgroups",
  t4: "t4: kernels for a CPU behind WebGPU",
};

const COUNTERS: Record<keyof Counters, string> = {
  pipelines: "Pipelines compiled",
  bindGroups: "Bind groups made",
  buffers: "Buffers made",
  submits: "Submissions to the queue",
  dispatches: "Kernel launches",
};

function subgroups(size: Caps["subgroups"]): string {
  if (size === null) {
    return "not there";
  }
  const [smallest, largest] = size;
  return smallest === largest ? `${smallest} lanes` : `${smallest} to ${largest} lanes`;
}

function facts(caps: Caps): [string, string][] {
  const yes = (there: boolean, missing: string): string => (there ? "yes" : `no: ${missing}`);
  const names = [caps.adapter, caps.architecture].filter((name) => name !== "");
  return [
    ["Adapter", names.join(", ") || "not named by the browser"],
    ["Kind", caps.isCpu ? "a CPU that stands in for a graphics processor: works, and is slow" : "graphics processor"],
    ["Kernels", TIERS[caps.tier]],
    ["Subgroups", subgroups(caps.subgroups)],
    ["16-bit floats", yes(caps.f16, "computed with 32 bits")],
    ["Packed 8-bit dot product", yes(caps.packedDot, "computed one by one")],
    ["GPU timestamps", yes(caps.timestamps, "times come from the clock of the page")],
    ["Largest buffer", format.bytes(caps.bufferBytes)],
    ["Largest part a kernel sees", format.bytes(caps.bindingBytes)],
    ["Buffers per kernel", format.count(caps.storageBuffers)],
    ["Threads per workgroup", format.count(caps.invocations)],
    ["Shared memory per workgroup", format.bytes(caps.workgroupBytes)],
  ];
}

/** Wires the device view. */
export function deviceView(session: Session): void {
  const lede = byId("device-lede", HTMLElement);
  const capsList = byId("caps", HTMLElement);
  const countersList = byId("counters", HTMLElement);
  const radios = [...document.querySelectorAll<HTMLInputElement>("input[name=tier]")];
  const bestName = byId("tier-best-name", HTMLElement);
  const t1 = byId("tier-t1", HTMLInputElement);

  function show(): void {
    const caps = session.girih?.caps ?? null;
    const gone = session.phase === "lost" || session.phase === "rebuilding";
    lede.textContent =
      caps === null
        ? "The engine has not started."
        : gone
          ? "The device is gone. This is what it was."
          : `${caps.adapter === "" ? "The graphics processor" : caps.adapter} runs ${TIERS[caps.tier].slice(4)}.`;
    fillFacts(capsList, caps === null ? [] : facts(caps));
    bestName.textContent = settings.tier === "" && caps !== null ? `now ${caps.tier}` : "";
    const lacks = session.support?.subgroups === false;
    t1.disabled = lacks;
    t1.parentElement?.classList.toggle("choice-off", lacks);
  }

  async function showCounters(): Promise<void> {
    const { girih, model } = session;
    if (girih === null) {
      countersList.replaceChildren();
      return;
    }
    try {
      const { heapBytes, counters } = await girih.stats();
      const info = model?.info;
      const names = Object.keys(COUNTERS) as (keyof Counters)[];
      fillFacts(countersList, [
        ["WASM heap, at its largest", format.bytes(heapBytes)],
        ["Weights on the GPU", info === undefined ? "no model" : format.bytes(info.weightBytes)],
        ...(info === undefined || info.isEncoder
          ? []
          : [["Keys and values on the GPU", format.bytes(info.cacheBytes)] as [string, string]]),
        ...names.map((name): [string, string] => [COUNTERS[name], format.count(counters[name])]),
      ]);
    } catch {
      fillFacts(countersList, [["Counters", "not known: the engine does not answer"]]);
    }
  }

  radios.forEach((radio) => (radio.checked = radio.value === settings.tier));
  byId("tier-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    set("tier", radios.find((radio) => radio.checked)?.value ?? "");
    void session.restart();
  });
  byId("counters-refresh", HTMLButtonElement).addEventListener("click", () => void showCounters());

  let before = "";
  session.onChange(() => {
    show();
    // Numbers are read when something began or ended; reading them waits for the engine.
    const now = `${session.phase} ${session.activity ?? ""}`;
    if (now !== before && session.activity === null && session.phase !== "lost" && session.phase !== "rebuilding") {
      void showCounters();
    }
    before = now;
  });
}
