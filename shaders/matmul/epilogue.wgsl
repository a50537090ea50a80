// What happens to a finished sum:  y = residual + act(alpha (sum + bias)),  with GLU of a pair of neighbouring
// columns  y = residual + act(alpha (gate + bias)) · alpha (up + bias).
// The importer declares bias_of(column), residual and y [M, Y], and p.y_stride = Y, p.alpha, p.soft_cap.
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
    put_y(row * p.y_stride + column / 2u, activate(affine(gate, column)) * affine(up, column + 1u));
}
