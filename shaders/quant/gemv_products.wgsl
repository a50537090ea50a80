// The products of gemv_lanes.wgsl with quantised weights: a lane takes a block of 32 channels of each of its rows with
// one load and multiplies x by the integers of the codes; scale and zero follow behind the sum of the channels that
// share them:  Σ s (v - z) x = s (Σ v x - z Σ x).  Channels beyond the last group of 8 meet zeros of x.
        var own_sum: array<f32, COLS>;
        for (var c = 0u; c < COLS; c++) { //!unroll
            mine[c].lo = select(vec4<f32>(0.0), mine[c].lo, base + lane < p.num_k8);
            mine[c].hi = select(vec4<f32>(0.0), mine[c].hi, base + lane < p.num_k8);
            if HAS_ZERO { own_sum[c] = dot(mine[c].lo + mine[c].hi, vec4<f32>(1.0)); }
            mine[c].lo *= places_lo();
            mine[c].hi *= places_hi();
        } //!unroll
        var words: array<vec2<u32>, ROWS>;
        var factors: array<vec2<f32>, ROWS>;
        for (var r = 0u; r < ROWS; r++) { //!unroll
            let row = w0 + min(n0 + r, p.num_n - 1u);
            if SPAN_IN_GROUP {
                factors[r] = scale_of(row, group_of(base));
            } else if SPAN_WORDS {
                words[r] = span_scales(row, base);
                factors[r] = factor_of(row, group_of(base));
            }
        } //!unroll
        for (var b = 0u; b < LANES / 4u; b++) { //!unroll
            if base + 4u * b < p.num_k8 {
                var codes: array<Codes32, ROWS>;
                var scales: array<vec2<f32>, ROWS>;
                var part: array<f32, ROWS * COLS>;
                var sum_x: array<f32, COLS>;
                for (var i = 0u; i < ROWS * COLS; i++) { //!unroll
                    part[i] = 0.0;
                } //!unroll
                for (var c = 0u; c < COLS; c++) { //!unroll
                    sum_x[c] = 0.0;
                } //!unroll
                for (var r = 0u; r < ROWS; r++) { //!unroll
                    codes[r] = placed32(w0 + min(n0 + r, p.num_n - 1u), base / 4u + b);
                } //!unroll
                for (var j = 0u; j < 4u; j++) { //!unroll
                    if j % SPAN8 == 0u {
                        let g = group_of(min(base + 4u * b + j, p.num_k8 - 1u));
                        for (var r = 0u; r < ROWS; r++) { //!unroll
                            if SPAN_IN_GROUP {
                                scales[r] = factors[r];
                            } else if SPAN_WORDS {
                                scales[r] = span_scale(words[r], factors[r], (4u * b + j) / max(GROUP8, 1u));
                            } else {
                                scales[r] = scale_of(w0 + min(n0 + r, p.num_n - 1u), g);
                            }
                        } //!unroll
                    }
                    var values: array<Vec8, ROWS>;
                    for (var r = 0u; r < ROWS; r++) { //!unroll
                        values[r] = Vec8(values_lo(codes[r].lo[j]), values_hi(codes[r].hi[j]));
                    } //!unroll
                    for (var c = 0u; c < COLS; c++) { //!unroll
                        let lo = subgroupBroadcast(mine[c].lo, 4u * b + j);
                        let hi = subgroupBroadcast(mine[c].hi, 4u * b + j);
                        for (var r = 0u; r < ROWS; r++) { //!unroll
                            part[r * COLS + c] = dot_add(values[r].hi, hi, dot_add(values[r].lo, lo, part[r * COLS + c]));
                        } //!unroll
                        if HAS_ZERO { sum_x[c] += subgroupBroadcast(own_sum[c], 4u * b + j); }
                        if (j + 1u) % SPAN8 == 0u {
                            for (var r = 0u; r < ROWS; r++) { //!unroll
                                acc[r * COLS + c] += scaled_sum(scales[r], part[r * COLS + c], sum_x[c]);
                                part[r * COLS + c] = 0.0;
                            } //!unroll
                            sum_x[c] = 0.0;
                        }
                    } //!unroll
                } //!unroll
            }
        } //!unroll
