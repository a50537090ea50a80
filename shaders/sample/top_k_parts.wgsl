// Stage 1: logits in, (key, index) out.
@group(0) @binding(2) var<storage, read_write> values: array<f32>;    // [S, num_parts, k]
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;       // [S, num_parts, k]

fn element(row_base: u32, i: u32) -> Best { return Best(order_key(logits[row_base + i]), i); }
fn put(at: u32, found: Best) {
    values[at] = key_value(found.key);
    ids[at] = found.index;
}
