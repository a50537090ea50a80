// The table of angle_table.wgsl by two pairs; num_pairs is even.
@group(0) @binding(3) var<storage, read> table: array<vec4<f32>>;

fn cos_sin2(position: u32, i: u32, block: u32) -> vec4<f32> {
    let row = block * p.max_positions + min(position, p.max_positions - 1u);
    return table[(row * p.num_pairs + i) / 2u];
}
