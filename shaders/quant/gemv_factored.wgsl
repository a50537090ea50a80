// The products of gemv.wgsl with quantised weights: scale and zero follow behind the sum of 8 or 16 channels that share
// them, so that no weight is scaled by itself:  Σ s (v - z) x = s (Σ v x - z Σ x).
        var sum_x: array<f32, COLS>;
        for (var c = 0u; c < COLS; c++) { //!unroll
            sum_x[c] = 0.0;
        } //!unroll
        for (var t = 0u; t < STEP8; t++) { //!unroll
            for (var c = 0u; c < COLS; c++) { //!unroll
                if HAS_ZERO { sum_x[c] += dot(v[t * COLS + c].lo + v[t * COLS + c].hi, vec4<f32>(1.0)); }
            } //!unroll
        } //!unroll
        for (var r = 0u; r < ROWS; r++) { //!unroll
            let row = w0 + min(n0 + r, p.num_n - 1u);
            var codes = codes8(row, k8).xyxy;
            if STEP8 == 2u { codes = codes16(row, k8); }
            let s = scale_of(row, group_of(k8));
            var sum_vx: array<f32, COLS>;
            for (var c = 0u; c < COLS; c++) { //!unroll
                sum_vx[c] = 0.0;
            } //!unroll
            for (var t = 0u; t < STEP8; t++) { //!unroll
                let values = Vec8(code_values(codes[2u * t]), code_values(codes[2u * t + 1u]));
                for (var c = 0u; c < COLS; c++) { //!unroll
                    sum_vx[c] = dot_add8(values, v[t * COLS + c], sum_vx[c]);
                } //!unroll
            } //!unroll
            for (var c = 0u; c < COLS; c++) { //!unroll
                acc[r * COLS + c] += scaled_sum(s, sum_vx[c], sum_x[c]);
            } //!unroll
        } //!unroll
