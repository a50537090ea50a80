// Gate at even, up at odd places.
fn load_pair(i: u32) -> Pair { return Pair(gate[2u * i], up[2u * i + 1u]); }
