// What happens to a finished sum:  y = residual + act(alpha (sum + bias)),  with GLU of a pair of neighbouring
// columns  y = residual + act(alpha (gate + bias)) · alpha (up + bias).  Of those which clamp with g, u for the two terms:
//   6   (1 + clamp(u, -cap, cap)) · min(g, cap) sigmoid(glu_alpha min(g, cap))      gpt-oss
//   7   clamp(u, -cap, cap) · silu(min(g, cap))                                     DeepSeek-V4
//   8   clamp(u, -cap, cap) · min(silu(g), cap)                                     Step-3.7
// The importer declares bias_of(column), residual and y [M, Y], and p.y_stride = Y, p.alpha, p.soft_cap, p.glu_alpha.
//!import common/activation.wgsl
const ACT: u32 = 0u; //!spec
const GLU: bool = false; //!spec
const HAS_BIAS: bool = false; //!spec
const HAS_RESIDUAL: bool = false; //!spec

fn activate(v: f32) -> f32 {
    switch ACT {
        case 1u: { return act_silu(v); }
        case 2u: { return act_gelu_erf(v); }
        case 3u: { return act_gelu_tanh(v); }
        case 4u: { return act_relu(v); }
        case 5u: { return p.soft_cap * act_tanh(v / p.soft_cap); }
        case 6u: {
            let top = min(v, p.soft_cap);
            return top * act_sigmoid(p.glu_alpha * top);
        }
        case 7u: { return act_silu(min(v, p.soft_cap)); }
        case 8u: { return min(act_silu(v), p.soft_cap); }
        default: { return v; }
    }
}

fn affine(sum: f32, column: u32) -> f32 {
    if HAS_BIAS { return p.alpha * (sum + bias_of(column)); }
    return p.alpha * sum;
}

fn put_y(at: u32, v: f32) {
    if HAS_RESIDUAL { y[at] = residual[at] + v; } else { y[at] = v; }
}

fn store(row: u32, column: u32, sum: f32) {
    put_y(row * p.y_stride + column, activate(affine(sum, column)));
}

fn store_glu(row: u32, column: u32, gate: f32, up: f32) {
    var u = affine(up, column + 1u);
    if ACT > 5u { u = clamp(u, -p.soft_cap, p.soft_cap); }
    if ACT == 6u { u += 1.0; }
    put_y(row * p.y_stride + column / 2u, activate(affine(gate, column)) * u);
}
