// exp(l - top), of infinite logits too: 1 for the top itself, 0 for minus infinity.
fn exp_below(l: f32, top: f32) -> f32 {
    if bitcast<u32>(l) == 0xff800000u { return 0.0; }
    if bitcast<u32>(l) == bitcast<u32>(top) { return 1.0; }
    return exp(max(l - top, -100.0));
}
