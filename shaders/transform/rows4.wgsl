// X · P2, four channels at a time. An invocation computes four columns of eight rows; as many rows as the workgroup
// has invocations for are read, then written.
fn p2_coefficients(order: u32, tile: u32, k: u32) -> Eight { return Eight(vec4<f32>(), vec4<f32>()); }

fn mix_rows(id: u32) {
    let quads = p.n2 / 4u;
    let num_rows = p.num_channels / p.n2;
    let column = id % quads;
    for (var first = 0u; first < num_rows; first += p.rows_per_round) {
        let own = first + id / quads * 8u;
        let busy = id / quads * 8u < p.rows_per_round && own < num_rows;
        var y0 = V();
        var y1 = V();
        var y2 = V();
        var y3 = V();
        var y4 = V();
        var y5 = V();
        var y6 = V();
        var y7 = V();
        if busy {
            let last = num_rows - 1u;
            for (var k = 0u; k < quads; k++) {
                let at = 4u * k * quads + column;
                let m = mat4x4<f32>(p2[at], p2[at + quads], p2[at + 2u * quads], p2[at + 3u * quads]);
                y0 += m * row_get(own * quads + k);
                y1 += m * row_get(min(own + 1u, last) * quads + k);
                y2 += m * row_get(min(own + 2u, last) * quads + k);
                y3 += m * row_get(min(own + 3u, last) * quads + k);
                y4 += m * row_get(min(own + 4u, last) * quads + k);
                y5 += m * row_get(min(own + 5u, last) * quads + k);
                y6 += m * row_get(min(own + 6u, last) * quads + k);
                y7 += m * row_get(min(own + 7u, last) * quads + k);
            }
        }
        row_barrier();
        if busy {
            let to = own * quads + column;
            let left = num_rows - own;
            row_put(to, y0);
            if left > 1u { row_put(to + quads, y1); }
            if left > 2u { row_put(to + 2u * quads, y2); }
            if left > 3u { row_put(to + 3u * quads, y3); }
            if left > 4u { row_put(to + 4u * quads, y4); }
            if left > 5u { row_put(to + 5u * quads, y5); }
            if left > 6u { row_put(to + 6u * quads, y6); }
            if left > 7u { row_put(to + 7u * quads, y7); }
        }
        row_barrier();
    }
}
