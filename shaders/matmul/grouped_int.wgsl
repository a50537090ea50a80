@group(0) @binding(8) var<storage, read> groups: array<u32>;          // [tiles, 4], [slots]
//!import matmul/tile_slots.wgsl
