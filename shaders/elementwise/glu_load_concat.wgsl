// Each row is [gate | up].
fn load_pair(i: u32) -> Pair {
    let row_len = p.num_channels / VEC;
    let at = i + i / row_len * row_len;
    return Pair(gate[at], up[at + row_len]);
}
