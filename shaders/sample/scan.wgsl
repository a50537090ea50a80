// The better one of what was found so far and a logit; indices ascend, so a tie keeps the earlier one.
fn scan(so_far: Best, v: f32, i: u32) -> Best {
    let key = order_key(v);
    if key > so_far.key { return Best(key, i); }
    return so_far;
}
