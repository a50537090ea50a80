// The sums of a workgroup of gemv.wgsl or routed_gemv.wgsl: rows of x from x0 on, rows of W from w0 + n0 on.
    for (var k8 = STEP8 * lane.id; k8 < p.num_k8; k8 += STEP8 * WG) {
        var v: array<Vec8, STEP8 * COLS>;
        for (var t = 0u; t < STEP8; t++) { //!unroll
            let norm_w = load_norm_weight8(k8 + t);
            for (var c = 0u; c < COLS; c++) { //!unroll
                var x8 = load_x8(x0 + c, k8 + t);
                if NORM_ADD {
                    x8 = add_stream8(c, k8 + t, x8, behind[c]);
                    if keeps_sum { keep_sum8(c, k8 + t, x8); }
                }
                if RMS_SUMS > 0u {
                    sum_sq[c] += dot(x8.lo, x8.lo) + dot(x8.hi, x8.hi);
                    x8 = Vec8(x8.lo * norm_w.lo, x8.hi * norm_w.hi);
                }
                if LAYER_NORM {
                    x8.lo = (x8.lo - mean[c]) * rstd[c] * norm_w.lo;
                    x8.hi = (x8.hi - mean[c]) * rstd[c] * norm_w.hi;
                }
                if LAYER_NORM_BIAS {
                    let norm_b = load_norm_bias8(k8 + t);
                    x8 = Vec8(x8.lo + norm_b.lo, x8.hi + norm_b.hi);
                }
                v[t * COLS + c] = x8;
            } //!unroll
        } //!unroll
        //!slot products
        for (var r = 0u; r < ROWS; r++) { //!unroll
            for (var t = 0u; t < STEP8; t++) { //!unroll
                let w8 = load_w8(w0 + min(n0 + r, p.num_n - 1u), k8 + t);
                for (var c = 0u; c < COLS; c++) { //!unroll
                    acc[r * COLS + c] = dot_add8(w8, v[t * COLS + c], acc[r * COLS + c]);
                } //!unroll
            } //!unroll
        } //!unroll
        //!end
    }
