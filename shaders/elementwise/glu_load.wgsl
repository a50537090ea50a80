// Gate and up are two tensors.
fn load_pair(i: u32) -> Pair { return Pair(gate[i], up[i]); }
