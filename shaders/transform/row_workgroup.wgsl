// The row in workgroup memory, one V left free after each 32 channels: lanes that are 32 channels apart, as when
// blocks are written, meet different banks.
const ROW: u32 = 1152u; //!spec
const KEEPS: bool = true;
const PAD: u32 = 32u / VEC;
var<workgroup> row_data: array<V, ROW>;
fn row_put(i: u32, v: V) { row_data[i + i / PAD] = v; }
fn row_get(i: u32) -> V { return row_data[i + i / PAD]; }
fn row_barrier() { workgroupBarrier(); }
