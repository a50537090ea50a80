// Two f16. What f16 cannot hold becomes NaN, in bits: it reaches the logits, and who reads them is told.
fn half2(x: vec2<f32>) -> u32 {
    let fits = abs(x) <= vec2<f32>(65504.0);
    let bits = pack2x16float(select(vec2<f32>(0.0), x, fits));
    return bits | select(0x7e00u, 0u, fits.x) | select(0x7e000000u, 0u, fits.y);
}
