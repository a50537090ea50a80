// Butterflies on the fast axis, products with matrices of ±1 on slow ones. The sum of squares grows by the number
// of channels that are mixed; the gain takes that back.
//!import transform/columns.wgsl

// A word of the table holds the signs that one input has in the eight results of a tile.
fn coefficients(axis: vec4<u32>, tile: u32, k: u32) -> Eight {
    let bits = table[axis.z + tile * axis.x + k];
    let low = (vec4(bits) << vec4(31u, 30u, 29u, 28u)) & vec4(0x80000000u);
    let high = (vec4(bits) << vec4(27u, 26u, 25u, 24u)) & vec4(0x80000000u);
    return Eight(bitcast<vec4<f32>>(low | vec4(0x3f800000u)), bitcast<vec4<f32>>(high | vec4(0x3f800000u)));
}

fn mix_row(id: u32) {
    row_barrier();
    butterflies(id);
    for (var i = 0u; i < p.num_stages; i++) { mix_columns(id, p.stages[i]); }
}

fn mixed(i: u32) -> V { return row_get(i); }

// Three steps at a time in registers, then what is left.
fn butterflies(id: u32) {
    let row_len = p.num_channels / VEC;
    var shift = 0u;
    while shift + 3u <= p.butterfly_steps {
        let h = 1u << shift;
        for (var i = id; i < row_len / 8u; i += WG) {
            let at = ((i >> shift) << (shift + 3u)) + (i & (h - 1u));
            let a0 = row_get(at);
            let a1 = row_get(at + h);
            let a2 = row_get(at + 2u * h);
            let a3 = row_get(at + 3u * h);
            let a4 = row_get(at + 4u * h);
            let a5 = row_get(at + 5u * h);
            let a6 = row_get(at + 6u * h);
            let a7 = row_get(at + 7u * h);
            let b0 = a0 + a1;
            let b1 = a0 - a1;
            let b2 = a2 + a3;
            let b3 = a2 - a3;
            let b4 = a4 + a5;
            let b5 = a4 - a5;
            let b6 = a6 + a7;
            let b7 = a6 - a7;
            let c0 = b0 + b2;
            let c1 = b1 + b3;
            let c2 = b0 - b2;
            let c3 = b1 - b3;
            let c4 = b4 + b6;
            let c5 = b5 + b7;
            let c6 = b4 - b6;
            let c7 = b5 - b7;
            row_put(at, c0 + c4);
            row_put(at + h, c1 + c5);
            row_put(at + 2u * h, c2 + c6);
            row_put(at + 3u * h, c3 + c7);
            row_put(at + 4u * h, c0 - c4);
            row_put(at + 5u * h, c1 - c5);
            row_put(at + 6u * h, c2 - c6);
            row_put(at + 7u * h, c3 - c7);
        }
        row_barrier();
        shift += 3u;
    }
    let h = 1u << shift;
    if p.butterfly_steps - shift == 2u {
        for (var i = id; i < row_len / 4u; i += WG) {
            let at = ((i >> shift) << (shift + 2u)) + (i & (h - 1u));
            let a0 = row_get(at);
            let a1 = row_get(at + h);
            let a2 = row_get(at + 2u * h);
            let a3 = row_get(at + 3u * h);
            row_put(at, (a0 + a1) + (a2 + a3));
            row_put(at + h, (a0 - a1) + (a2 - a3));
            row_put(at + 2u * h, (a0 + a1) - (a2 + a3));
            row_put(at + 3u * h, (a0 - a1) - (a2 - a3));
        }
        row_barrier();
    } else if p.butterfly_steps - shift == 1u {
        for (var i = id; i < row_len / 2u; i += WG) {
            let at = ((i >> shift) << (shift + 1u)) + (i & (h - 1u));
            let a0 = row_get(at);
            let a1 = row_get(at + h);
            row_put(at, a0 + a1);
            row_put(at + h, a0 - a1);
        }
        row_barrier();
    }
}
