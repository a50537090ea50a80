fn mix_row(id: u32) {}
fn mixed(i: u32) -> V { return row_get(i); }
