// Stage 2: the lists of the parts in, the list of the row out.
@group(0) @binding(2) var<storage, read_write> values: array<f32>;    // [S, k]
@group(0) @binding(3) var<storage, read_write> ids: array<u32>;       // [S, k]
@group(0) @binding(4) var<storage, read> part_ids: array<u32>;        // [S, num_parts * k]; logits holds values

fn element(row_base: u32, i: u32) -> Best {
    let id = part_ids[row_base + i];
    return Best(select(order_key(logits[row_base + i]), 0u, id == NONE), id);
}
fn put(at: u32, found: Best) {
    values[at] = key_value(found.key);
    ids[at] = found.index;
}
