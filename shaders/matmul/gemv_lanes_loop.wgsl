// The sums of a lane of gemv_lanes.wgsl or routed_gemv_lanes.wgsl: rows of x from x0 on, rows of W from w0 + n0 on.
    for (var base = 0u; base < p.num_k8; base += LANES) {
        var mine: array<Vec8, COLS>;
        let k8 = min(base + lane, p.num_k8 - 1u);
        // A lane beyond the last group loads the last one again; it is not counted and nobody asks for it.
        let counted = select(0.0, 1.0, base + lane < p.num_k8);
        let norm_w = load_norm_weight8(k8);
        for (var c = 0u; c < COLS; c++) { //!unroll
            mine[c] = load_x8(x0 + c, k8);
            if RMS_SUMS > 0u {
                sum_sq[c] += counted * (dot(mine[c].lo, mine[c].lo) + dot(mine[c].hi, mine[c].hi));
                mine[c].lo *= norm_w.lo;
                mine[c].hi *= norm_w.hi;
            }
            if LAYER_NORM {
                mine[c].lo = (mine[c].lo - mean[c]) * rstd[c] * norm_w.lo;
                mine[c].hi = (mine[c].hi - mean[c]) * rstd[c] * norm_w.hi;
            }
            if LAYER_NORM_BIAS {
                let norm_b = load_norm_bias8(k8);
                mine[c].lo += norm_b.lo;
                mine[c].hi += norm_b.hi;
            }
        } //!unroll
        //!slot products
        for (var j = 0u; j < LANES; j++) { //!unroll
            if base + j < p.num_k8 {
                var weights: array<Vec8, ROWS>;
                for (var r = 0u; r < ROWS; r++) { //!unroll
                    weights[r] = load_w8(w0 + min(n0 + r, p.num_n - 1u), base + j);
                } //!unroll
                for (var c = 0u; c < COLS; c++) { //!unroll
                    let lo = subgroupBroadcast(mine[c].lo, j);
                    let hi = subgroupBroadcast(mine[c].hi, j);
                    for (var r = 0u; r < ROWS; r++) { //!unroll
                        acc[r * COLS + c] = dot_add(weights[r].hi, hi, dot_add(weights[r].lo, lo, acc[r * COLS + c]));
                    } //!unroll
                } //!unroll
            }
        } //!unroll
        //!end
    }
