// The sums of a lane of gemv_int_lanes.wgsl or routed_gemv_int_lanes.wgsl: rows of x from x0 on, rows of W from w0 + n0 on.
    for (var base = 0u; base < num_blocks(); base += LANES) {
        var mine: array<XBlock, COLS>;
        var pairs: array<XPairs, COLS>;
        // A lane beyond the last block loads the last one again; it is not counted and nobody asks for it.
        let b = min(base + lane, num_blocks() - 1u);
        for (var c = 0u; c < COLS; c++) { //!unroll
            mine[c] = x_block(x0 + c, b);
            pairs[c] = x_pairs(mine[c]);
            sum_sq[c] += select(0.0, mine[c].sum_sq, base + lane < num_blocks());
        } //!unroll
        let count = min(LANES, num_blocks() - base);
        for (var j = 0u; j < count; j++) {
            var q: array<Codes32, ROWS>;
            for (var r = 0u; r < ROWS; r++) { //!unroll
                let row = w0 + min(n0 + r, p.num_n - 1u);
                q[r] = codes32(row, base + j);
                scales[r] = next_scales(scales[r], row, base, j);
            } //!unroll
            for (var c = 0u; c < COLS; c++) { //!unroll
                let a = XPairs(subgroupShuffle(pairs[c].even_lo, j), subgroupShuffle(pairs[c].odd_lo, j),
                               subgroupShuffle(pairs[c].even_hi, j), subgroupShuffle(pairs[c].odd_hi, j));
                let sums = subgroupShuffle(mine[c].sums, j);
                let scale = subgroupShuffle(mine[c].scale, j);
                for (var r = 0u; r < ROWS; r++) { //!unroll
                    let product = block_product(scales[r].now, pair_dots(q[r], a, sums), sums);
                    acc[r * COLS + c] = fma(scale, product, acc[r * COLS + c]);
                } //!unroll
            } //!unroll
        }
    }
