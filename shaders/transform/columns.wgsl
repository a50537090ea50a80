// One axis of the row times a square matrix, in place: result k' of a column is Σ_k coefficient(k, k') · input k.
// An invocation computes eight results of one column. As many columns as the workgroup has invocations for are
// read, then written.
struct Eight { low: vec4<f32>, high: vec4<f32> }

fn mix_columns(id: u32, axis: vec4<u32>) {
    let order = axis.x;
    let stride = axis.y;
    let at_once = axis.w;
    let columns = p.num_channels / VEC / order;
    let tile = id / at_once;
    for (var first = 0u; first < columns; first += at_once) {
        let column = first + id % at_once;
        let base = column / stride * order * stride + column % stride;
        let busy = 8u * tile < order && column < columns;
        var y0 = V();
        var y1 = V();
        var y2 = V();
        var y3 = V();
        var y4 = V();
        var y5 = V();
        var y6 = V();
        var y7 = V();
        if busy {
            for (var k = 0u; k < order; k++) {
                let v = row_get(base + k * stride);
                let c = coefficients(axis, tile, k);
                y0 += v * c.low.x;
                y1 += v * c.low.y;
                y2 += v * c.low.z;
                y3 += v * c.low.w;
                y4 += v * c.high.x;
                y5 += v * c.high.y;
                y6 += v * c.high.z;
                y7 += v * c.high.w;
            }
        }
        row_barrier();
        if busy {
            let to = base + 8u * tile * stride;
            let left = order - 8u * tile;
            row_put(to, y0);
            if left > 1u { row_put(to + stride, y1); }
            if left > 2u { row_put(to + 2u * stride, y2); }
            if left > 3u { row_put(to + 3u * stride, y3); }
            if left > 4u { row_put(to + 4u * stride, y4); }
            if left > 5u { row_put(to + 5u * stride, y5); }
            if left > 6u { row_put(to + 6u * stride, y6); }
            if left > 7u { row_put(to + 7u * stride, y7); }
        }
        row_barrier();
    }
}
