// Rows of y from y0 on of a workgroup whose NUM_SUMS sums are finished: ROWS * COLS products and, with RMS_SUMS, the sums of squares of
// the COLS rows of x. The importer declares WG, ROWS, COLS, RMS_SUMS.
//!import matmul/sums.wgsl
fn store_sums(y0: u32, n0: u32, lane: Lane) {
    let step = select(1u, 2u, GLU);
    for (var i = lane.id; i < ROWS * COLS / step; i += WG) {
        let c = i % COLS;
        let r = i / COLS * step;
        if n0 + r >= p.num_n { continue; }
        var scale = 1.0;
        if RMS_SUMS > 0u { scale = inverseSqrt(get_sum(ROWS * COLS + c, lane) / f32(p.num_k) + p.eps); }
        let sum = scale * get_sum(r * COLS + c, lane);
        if GLU {
            store_glu(y0 + c, p.n_base + n0 + r, sum, scale * get_sum((r + 1u) * COLS + c, lane));
        } else {
            store(y0 + c, p.n_base + n0 + r, sum);
        }
    }
}
