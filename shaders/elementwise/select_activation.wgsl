// The activation function that ACT names: the order of `Activation` in kernels/src/elementwise/mod.rs.
const ACT: u32 = 0u; //!spec
//!import common/activation.wgsl

fn act1(x: f32) -> f32 {
    switch ACT {
        case 0u: { return act_silu(x); }
        case 1u: { return act_gelu_erf(x); }
        case 2u: { return act_gelu_tanh(x); }
        case 3u: { return act_relu(x); }
        case 4u: { return act_relu2(x); }
        case 5u: { return act_sigmoid(x); }
        case 6u: { return act_softplus(x); }
        case 7u: { return act_tanh(x); }
        default: { return act_quick_gelu(x); }
    }
}
