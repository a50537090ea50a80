// The products of gemv.wgsl with quantised weights: scale and zero follow behind the sum of 8 channels, so that no weight
// is scaled by itself:  Σ s (v - z) x = s (Σ v x - z Σ x).
        var sum_x: array<f32, COLS>;
        for (var c = 0u; c < COLS; c++) { //!unroll
            if HAS_ZERO { sum_x[c] = dot(v[c].lo + v[c].hi, vec4<f32>(1.0)); }
        } //!unroll
        for (var r = 0u; r < ROWS; r++) { //!unroll
            let row = min(n0 + r, p.num_n - 1u);
            let codes = codes8(row, k8);
            let s = scale_of(row, group_of(k8));
            let lo = code_values(codes.x);
            let hi = code_values(codes.y);
            for (var c = 0u; c < COLS; c++) { //!unroll
                let sum_vx = dot_add(hi, v[c].hi, dot_add(lo, v[c].lo, 0.0));
                acc[r * COLS + c] += scaled_sum(s, sum_vx, sum_x[c]);
            } //!unroll
        } //!unroll
