// Chains of independent multiply-adds in registers: the rate that a kernel can have. Every invocation does
// 4 CHAINS rounds of them and writes one number, so that none is dropped.
const WG: u32 = 64u; //!spec
const CHAINS: u32 = 4u; //!spec
alias T = f32; //!spec
struct Params { rounds: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;                // [2]: start, factor
@group(0) @binding(2) var<storage, read_write> y: array<f32>;          // [invocations]
//!slot types
//!end

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) global: vec3<u32>) {
    var acc: array<vec4<T>, CHAINS>;
    let start = vec4<T>(T(x[0]));
    let factor = vec4<T>(T(x[1]));
    for (var c = 0u; c < CHAINS; c++) { //!unroll
        acc[c] = start + vec4<T>(T(c));
    } //!unroll
    for (var r = 0u; r < p.rounds; r++) {
        for (var c = 0u; c < CHAINS; c++) { //!unroll
            acc[c] = fma(acc[c], factor, start);
        } //!unroll
    }
    var sum = vec4<f32>(0.0);
    for (var c = 0u; c < CHAINS; c++) { //!unroll
        sum += vec4<f32>(acc[c]);
    } //!unroll
    y[global.x] = sum.x + sum.y + sum.z + sum.w;
}
