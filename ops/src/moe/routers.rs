//! Routers that are more than the choice of a token by its logits.

use girih_kernels::moe::{choose_tokens as choose_kernel, gru, random, scores as scores_kernel};

use super::Score;
use crate::{DType, Frame, Linear, Matrix, OpError, Tensor, linear};

/// Logits with the gating residual of MoE++ (2410.07348): `l = W x + W_res l_prev`, l_prev those of the layer with experts before.
/// The first one has none.
///
/// # Shapes
/// x `[T, D]`, w `[E, D]`, l_prev `[T, E']`, W_res `[E, E']` → `[T, E]`
///
/// # Errors
/// As [`linear`].
pub fn residual_logits(
    frame: &mut Frame,
    x: &Tensor,
    w: &Matrix,
    previous: Option<(&Tensor, &Matrix)>,
) -> Result<Tensor, OpError> {
    let carried = match previous {
        Some((logits, w)) => Some(linear(frame, logits, w, &Linear::default())?),
        None => None,
    };
    linear(frame, x, w, &Linear { residual: carried.as_ref(), ..Linear::default() })
}

/// The weights of a recurrent router. The unit (`from_input` and `from_state` with their biases) is one for all layers.
#[derive(Clone, Copy, Debug)]
pub struct Recurrent<'a> {
    /// W1 of the layer `[P, D]`.
    pub project: &'a Matrix,
    /// W_i `[3 P, P]`: rows of the reset gate, the update gate, the new state.
    pub from_input: &'a Matrix,
    /// b_i `[3 P]`
    pub input_bias: &'a Tensor,
    /// W_h `[3 P, P]`
    pub from_state: &'a Matrix,
    /// b_h `[3 P]`
    pub state_bias: &'a Tensor,
    /// W2 of the layer `[E, P]`.
    pub logits: &'a Matrix,
}

/// Logits of a recurrent router (RMoE): `u = W1 x`, `h' = GRU(u, h)`, `l = W2 h'`. The state h goes from layer to layer, of each
/// token by itself; it is 0 (`None`) at the first. The unit is that of PyTorch: `r = sigmoid(W_ir u + b_ir + W_hr h + b_hr)`, z
/// likewise, `n = tanh(W_in u + b_in + r (W_hn h + b_hn))`, `h' = (1 - z) n + z h`. Returns `(l, h')`.
///
/// # Shapes
/// x `[T, D]`, h `[T, P]` → l `[T, E]`, h' `[T, P]`
///
/// # Errors
/// Shapes or types that do not fit, and as [`linear`].
pub fn recurrent_logits(
    frame: &mut Frame,
    x: &Tensor,
    router: &Recurrent<'_>,
    state: Option<&Tensor>,
) -> Result<(Tensor, Tensor), OpError> {
    let op = "recurrent_logits";
    let Recurrent { project, from_input, input_bias, from_state, state_bias, logits } = *router;
    let u = linear(frame, x, project, &Linear::default())?; // [T, P]
    let [tokens, p] = u.dims(op, "u")?;
    for (what, of) in [("rows of W_i", from_input), ("rows of W_h", from_state)] {
        if Some(of.n) != p.checked_mul(3) {
            let want = format!("{}, three times those of W1", 3 * u64::from(p));
            return Err(OpError::Value { op, what, got: of.n.into(), want });
        }
    }
    let biased = |bias| Linear { bias: Some(bias), ..Linear::default() };
    let of_input = linear(frame, &u, from_input, &biased(input_bias))?; // [T, 3 P]
    let of_state = if let Some(state) = state {
        state.expect_dtype(op, "state", DType::F32)?;
        state.expect(op, "state", &[tokens, p])?;
        linear(frame, state, from_state, &biased(state_bias))? // [T, 3 P]
    } else {
        state_bias.expect_dtype(op, "state_bias", DType::F32)?;
        state_bias.expect(op, "state_bias", &[from_state.n])?;
        state_bias.clone()
    };
    let next = frame.alloc(&[tokens, p], DType::F32)?;
    let args = gru::Args {
        of_input: of_input.buffer(),
        of_state: of_state.buffer(),
        state: state.map(Tensor::buffer),
        y: next.buffer(),
    };
    gru::record(frame.recorder(), args, tokens, p)?;
    let logits = linear(frame, &next, logits, &Linear::default())?; // [T, E]
    Ok((logits, next))
}

/// Experts choose tokens (Zhou et al. 2202.09368; the routers of mixtures of recursions, 2507.10524, with one expert): each takes
/// the `capacity` tokens with its largest scores, the earlier token first among equals, NaN never. The weight is `scale` times the
/// score; a softmax is over the experts of a token.
///
/// A token has a slot for each expert, so that [`mixture()`](crate::mixture()) adds up in the order of experts; slots of experts that
/// do not take the token have the expert [`NONE`](super::NONE). A choice looks at all tokens, also at later ones.
///
/// # Shapes
/// logits `[T, E]` → u32 `[T, E, 2]`: expert, bits of its f32 weight
///
/// # Errors
/// Shapes or types that do not fit, no capacity or one beyond T, more experts than a router may have, 2^24 tokens or more.
pub fn choose_tokens(
    frame: &mut Frame,
    logits: &Tensor,
    score: Score,
    capacity: u32,
    scale: f32,
) -> Result<Tensor, OpError> {
    let op = "choose_tokens";
    let [tokens, experts] = logits.dims(op, "logits")?;
    logits.expect_dtype(op, "logits", DType::F32)?;
    let scores = frame.alloc(&[experts, tokens], DType::F32)?;
    let shape = [tokens, experts];
    scores_kernel::record(frame.recorder(), logits.buffer(), scores.buffer(), shape, score)?;
    let routes = frame.alloc(&[tokens, experts, 2], DType::U32)?;
    let shape = [tokens, experts, capacity];
    choose_kernel::record(frame.recorder(), scores.buffer(), routes.buffer(), shape, scale)?;
    Ok(routes)
}

/// An expert for each token by chance, with the weight 1 (THOR, 2110.04260): [`random::expert`] of seed, layer and position, so the
/// same token gets the same expert in whatever batch. One position for all tokens of a sentence gives all of them one expert.
///
/// # Shapes
/// positions u32 `[T]` → u32 `[T, 1, 2]`: expert, bits of 1
///
/// # Errors
/// Shapes or types that do not fit, no experts or more than a router may have.
pub fn random_routes(
    frame: &mut Frame,
    positions: &Tensor,
    experts: u32,
    [seed, layer]: [u32; 2],
) -> Result<Tensor, OpError> {
    let op = "random_routes";
    let [tokens] = positions.dims(op, "positions")?;
    positions.expect_dtype(op, "positions", DType::U32)?;
    let routes = frame.alloc(&[tokens, 1, 2], DType::U32)?;
    let args = (positions.buffer(), routes.buffer());
    random::record(frame.recorder(), args.0, args.1, [tokens, experts], [seed, layer])?;
    Ok(routes)
}
