// The row as X [n1, n2]: X' = P1ᵀ X P2.
//!import transform/columns.wgsl
//!import transform/rows.wgsl

fn coefficients(axis: vec4<u32>, tile: u32, k: u32) -> Eight {
    if axis.z == 1u { return p2_coefficients(axis.x, tile, k); }
    let at = k * axis.x;
    let last = axis.x - 1u;
    let column = 8u * tile;
    return Eight(
        bitcast<vec4<f32>>(vec4(table[at + column], table[at + min(column + 1u, last)],
            table[at + min(column + 2u, last)], table[at + min(column + 3u, last)])),
        bitcast<vec4<f32>>(vec4(table[at + min(column + 4u, last)], table[at + min(column + 5u, last)],
            table[at + min(column + 6u, last)], table[at + min(column + 7u, last)])),
    );
}

fn mix_row(id: u32) {
    row_barrier();
    mix_rows(id);
    mix_columns(id, p.stages[0]);
}

fn mixed(i: u32) -> V { return row_get(i); }
