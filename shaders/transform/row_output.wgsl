// A row that is too long for workgroup memory lies in y, that is in the cache.
const KEEPS: bool = true;
fn row_put(i: u32, v: V) { y[row_base + i] = v; }
fn row_get(i: u32) -> V { return y[row_base + i]; }
fn row_barrier() { storageBarrier(); }
