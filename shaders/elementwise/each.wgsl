// The activation of each channel of a V; each4.wgsl is for four.
fn act(v: V) -> V { return act1(v); }
