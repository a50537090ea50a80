// The products of gemm_direct.wgsl with quantised weights, block by block.
    for (var block = 0u; 4u * block < p.num_k8; block++) {
        var states: array<BlockState, TN>;
        for (var j = 0u; j < TN; j++) { //!unroll
            states[j] = block_state(w0 + min(n0 + j, p.num_n - 1u), block);
        } //!unroll
        let count = min(4u, p.num_k8 - 4u * block);
        for (var part = 0u; part < count; part++) {
            let k8 = 4u * block + part;
            var own: array<Vec8, (TM + LANES - 1u) / LANES>;
            for (var b = 0u; b < (TM + LANES - 1u) / LANES; b++) { //!unroll
                own[b] = own_x8(own_rows[b], k8);
            } //!unroll
            var frag_w: array<Vec8, TN>;
            for (var j = 0u; j < TN; j++) { //!unroll
                frag_w[j] = block_w8(states[j], w0 + min(n0 + j, p.num_n - 1u), k8, part);
            } //!unroll
            for (var i = 0u; i < TM; i++) { //!unroll
                let frag_x = share_x8(own[i / LANES], m0 + i / LANES * LANES, i % LANES, rows.end, k8);
                for (var j = 0u; j < TN; j++) { //!unroll
                    acc[i * TN + j] = dot_add(frag_x.hi, frag_w[j].hi, dot_add(frag_x.lo, frag_w[j].lo, acc[i * TN + j]));
                } //!unroll
            } //!unroll
        }
    }
