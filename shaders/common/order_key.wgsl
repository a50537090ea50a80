// (key, index) pairs and their order: the larger key first, the lower index among equals.
struct Best { key: u32, index: u32 }
const NONE: u32 = 0xffffffffu;

// Order of f32 as order of u32. NaN is 0, below everything; -0 equals 0.
fn order_key(x: f32) -> u32 {
    var bits = bitcast<u32>(x);
    if (bits & 0x7fffffffu) > 0x7f800000u { return 0u; }
    if bits == 0x80000000u { bits = 0u; }
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// Back from order_key; the most negative f32 for NaN.
fn key_value(key: u32) -> f32 {
    if key == 0u { return -3.4028234e38; }
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

fn better(a: Best, b: Best) -> bool { return a.key > b.key || (a.key == b.key && a.index < b.index); }
