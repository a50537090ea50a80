// Chains of independent dot products of four signed bytes each: the rate that a kernel of integers can have. Each takes
// the sum before it as bytes:  a = a + a · x.
const WG: u32 = 64u; //!spec
const CHAINS: u32 = 16u; //!spec
struct Params { rounds: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;                // [1]: four bytes
@group(0) @binding(2) var<storage, read_write> y: array<i32>;          // [invocations]

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) global: vec3<u32>) {
    var acc: array<i32, CHAINS>;
    let bytes = x[0];
    for (var c = 0u; c < CHAINS; c++) { //!unroll
        acc[c] = i32(global.x + c);
    } //!unroll
    for (var r = 0u; r < p.rounds; r++) {
        for (var c = 0u; c < CHAINS; c++) { //!unroll
            acc[c] += dot4I8Packed(bitcast<u32>(acc[c]), bytes);
        } //!unroll
    }
    var sum = 0;
    for (var c = 0u; c < CHAINS; c++) { //!unroll
        sum += acc[c];
    } //!unroll
    y[global.x] = sum;
}
