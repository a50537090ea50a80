// One sequence's rows of a ragged batch. Row i of it has position kv_len - q_len + i.
struct Seq {
    q_base: u32,    // first row among the batch's tokens
    q_len: u32,     // rows
    kv_len: u32,    // keys after this batch has been appended
    slot: u32,      // place in the cache
}
