// Gate at even, up at odd places, four of each at a time.
fn load_pair(i: u32) -> Pair {
    let a = gate[2u * i];
    let b = up[2u * i + 1u];
    return Pair(V(a.x, a.z, b.x, b.z), V(a.y, a.w, b.y, b.w));
}
