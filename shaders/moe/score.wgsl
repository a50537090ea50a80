// Scores of logits. The importer declares SCORE: 0 softmax, 1 sigmoid, 2 sqrt(softplus), 3 the logit.
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }

//!import common/exp_below.wgsl

// Any score but the softmax.
fn score(l: f32) -> f32 {
    switch SCORE {
        case 1u: { return act_sigmoid(l); }
        case 2u: { return sqrt(act_softplus(l)); }
        default: { return l; }
    }
}
