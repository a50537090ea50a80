// The state of a recurrent router: h' = (1 - z) n + z h, elements of a token on their own
//   r = sigmoid(a_r + b_r), z = sigmoid(a_z + b_z), n = tanh(a_n + r b_n)
// with a = W_i u + b_i and b = W_h h + b_h as [r | z | n]: a gated recurrent unit across layers               (RMoE)
const WG: u32 = 256u; //!spec
// Whether there is a state yet: without one h is 0, and b is one row, b_h.
const HAS_STATE: bool = true; //!spec
struct Params { len: u32, num_channels: u32, grid_x: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> of_input: array<f32>;            // [T, 3 P]
@group(0) @binding(2) var<storage, read> of_state: array<f32>;            // [T, 3 P], or [3 P]
@group(0) @binding(3) var<storage, read> state: array<f32>;               // [T, P]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;             // [T, P]
//!import common/activation.wgsl

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group.y * p.grid_x + group.x) * WG + lane;
    if i >= p.len { return; }
    let n = p.num_channels;
    let a = i / n * 3u * n + i % n;
    let b = select(i % n, a, HAS_STATE);
    let r = act_sigmoid(of_input[a] + of_state[b]);
    let z = act_sigmoid(of_input[a + n] + of_state[b + n]);
    let fresh = act_tanh(of_input[a + 2u * n] + r * of_state[b + 2u * n]);
    var next = (1.0 - z) * fresh;
    if HAS_STATE { next += z * state[i]; }
    y[i] = next;
}
