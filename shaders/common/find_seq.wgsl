// The sequence of token t: the last one that starts at or before it. The importer declares seqs, num_seqs and one_token_each
// (token t is the only one of sequence t).
fn find_seq(t: u32) -> u32 {
    if p.one_token_each != 0u { return t; }
    var low = 0u;
    var high = p.num_seqs;
    while high - low > 1u {
        let middle = (low + high) / 2u;
        if seqs[middle].q_base <= t { low = middle; } else { high = middle; }
    }
    return low;
}
