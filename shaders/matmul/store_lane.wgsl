// Two neighbouring columns of y that a lane has finished, n even: one with GLU.
fn store_two(row: u32, n: u32, first: f32, second: f32) {
    if n >= p.num_n { return; }
    if GLU {
        store_glu(row, p.n_base + n, first, second);
    } else {
        store(row, p.n_base + n, first);
        if n + 1u < p.num_n { store(row, p.n_base + n + 1u, second); }
    }
}
