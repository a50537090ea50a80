// (cos, sin) of a position's angle of pair i, from a table [blocks * max_positions, num_pairs]. angle_table4.wgsl
// and angle_computed.wgsl also have cos_sin2, the same of pairs i (even) and i + 1.
@group(0) @binding(3) var<storage, read> table: array<vec2<f32>>;

fn cos_sin(position: u32, i: u32, block: u32) -> vec2<f32> {
    let row = block * p.max_positions + min(position, p.max_positions - 1u);
    return table[row * p.num_pairs + i];
}
