// The activation of each channel of a V of four.
fn act(v: V) -> V { return V(act1(v.x), act1(v.y), act1(v.z), act1(v.w)); }
