//! Rows of queries and keys in the order of interleaved rotary embeddings, put into that of half-split ones.

/// Undoes the pairing of rows in whole heads: the rows 2i and 2i + 1 of each head become i and half + i. `head` and
/// `row` are bytes; a head has an even number of rows.
pub(super) fn undo(bytes: &mut [u8], head: usize, row: usize) {
    let half = head / row / 2;
    for stored in bytes.chunks_exact_mut(head) {
        let copy = stored.to_vec();
        for (i, pair) in copy.chunks_exact(2 * row).enumerate() {
            let (first, second) = pair.split_at(row);
            stored[i * row..][..row].copy_from_slice(first);
            stored[(half + i) * row..][..row].copy_from_slice(second);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn pairs_come_apart_in_each_head() {
        // Two heads of four rows of two bytes.
        let mut bytes: Vec<u8> = (0..16).collect();
        super::undo(&mut bytes, 8, 2);
        assert_eq!(bytes, [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]);
    }
}
