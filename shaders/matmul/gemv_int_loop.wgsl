// The sums of a workgroup of gemv_int.wgsl or routed_gemv_int.wgsl: rows of x from x0 on, rows of W from w0 + n0 on.
    for (var b = lane.id; b < num_blocks(); b += WG) {
        var v: array<XBlock, COLS>;
        for (var c = 0u; c < COLS; c++) { //!unroll
            v[c] = x_block(x0 + c, b);
            sum_sq[c] += v[c].sum_sq;
        } //!unroll
        for (var r = 0u; r < ROWS; r++) { //!unroll
            let row = w0 + min(n0 + r, p.num_n - 1u);
            let q = codes32(row, b);
            let s = block_scale(row, b);
            for (var c = 0u; c < COLS; c++) { //!unroll
                let product = block_product(s, block_dots(q, v[c].lo, v[c].hi), v[c].sums);
                acc[r * COLS + c] = fma(v[c].scale, product, acc[r * COLS + c]);
            } //!unroll
        } //!unroll
    }
