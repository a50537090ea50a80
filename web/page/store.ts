// What survives a reload. Storage may be missing, full, forbidden or hold anything: then the defaults count.

/** What the visitor has set; kept from visit to visit. */
export interface Settings {
  prompt: string;
  system: string;
  maxTokens: number;
  /** Temperature and top-p are the checkpoint's. */
  modelSampling: boolean;
  temperature: number;
  topP: number;
  newSeed: boolean;
  seed: number;
  url: string;
  /** Empty: the model's own. */
  context: string;
  weights: string;
  activations: string;
  /** Empty: the best of the device. */
  tier: string;
  kernels: string;
}

const DEFAULTS: Settings = {
  prompt: "Once upon a time",
  system: "",
  maxTokens: 300,
  modelSampling: true,
  temperature: 0.8,
  topP: 0.95,
  newSeed: true,
  seed: 0,
  url: "",
  context: "",
  weights: "",
  activations: "",
  tier: "",
  kernels: "",
};

const KEY = "girih.settings.1";

function read(storage: () => Storage, key: string): unknown {
  try {
    return JSON.parse(storage().getItem(key) ?? "null");
  } catch {
    return null;
  }
}

function write(storage: () => Storage, key: string, value: unknown): void {
  try {
    storage().setItem(key, JSON.stringify(value));
  } catch {
    // Without storage the page works the same and forgets.
  }
}

function load(): Settings {
  const stored = read(() => localStorage, KEY);
  if (typeof stored !== "object" || stored === null) {
    return { ...DEFAULTS };
  }
  const known = Object.entries(stored).filter(([key, value]) => {
    const fallback: unknown = Object.hasOwn(DEFAULTS, key) ? DEFAULTS[key as keyof Settings] : undefined;
    return typeof value === typeof fallback && (typeof value !== "number" || Number.isFinite(value));
  });
  return { ...DEFAULTS, ...Object.fromEntries(known) };
}

/** The settings now. Change them with `set`. */
export const settings: Readonly<Settings> = load();

/** Changes one setting and keeps it. */
export function set<K extends keyof Settings>(key: K, value: Settings[K]): void {
  (settings as Settings)[key] = value;
  write(() => localStorage, KEY, settings);
}

/** What belongs to this tab only (a conversation, a story): kept over a reload, gone when the tab closes. */
export const tab = {
  read: (key: string): unknown => read(() => sessionStorage, `girih.${key}`),
  write: (key: string, value: unknown): void => write(() => sessionStorage, `girih.${key}`, value),
};
