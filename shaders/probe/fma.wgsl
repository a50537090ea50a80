// Chains of independent multiply-adds in registers: the f32 rate that a kernel can have.
// Every invocation does rounds * CHAINS of them and writes one number, so that none is dropped.
const WG: u32 = 64u; //!spec
const CHAINS: u32 = 16u; //!spec
struct Params { rounds: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                // [2]: start, factor
@group(0) @binding(2) var<storage, read_write> y: array<f32>;          // [invocations]

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) global: vec3<u32>) {
    var acc: array<f32, CHAINS>;
    let start = x[0];
    let factor = x[1];
    for (var c = 0u; c < CHAINS; c++) { //!unroll
        acc[c] = start + f32(c);
    } //!unroll
    for (var r = 0u; r < p.rounds; r++) {
        for (var c = 0u; c < CHAINS; c++) { //!unroll
            acc[c] = fma(acc[c], factor, start);
        } //!unroll
    }
    var sum = 0.0;
    for (var c = 0u; c < CHAINS; c++) { //!unroll
        sum += acc[c];
    } //!unroll
    y[global.x] = sum;
}
