//! The gated networks of experts, for the tokens that were routed to them.

use girih_kernels::matmul::gemm::grouped as grouped_gemm;
use girih_kernels::matmul::gemm_int::grouped as grouped_gemm_int;
use girih_kernels::matmul::gemv::routed as routed_gemv;
use girih_kernels::matmul::gemv_int::routed as routed_gemv_int;
use girih_kernels::matmul::{Act, Epilogue, ExpertShape, GluAct, GroupedArgs, XRows};
use girih_kernels::{Caps, Grid};

use crate::linear::{fused_norm, int_parts, is_fused, parts, row_mix};
use crate::moe::{Null, SlotGroups, combine, group, null_experts};
use crate::{
    BreakPoint, DType, Frame, Matrix, Norm, OpError, QuantActivation, Quantized, RowTransform, Tensor,
    fake_quantize_rows, layer_norm, quantize_rows, rms_norm, transform_rows,
};

const OP: &str = "mixture";

/// The gated networks of E experts: `down(act(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug)]
pub struct Experts<'a> {
    /// `[E, 2 I, D]`: of each expert row 2i is gate i and row 2i + 1 up i.
    pub gate_up: &'a Matrix,
    /// `[2 E I]`
    pub gate_up_bias: Option<&'a Tensor>,
    /// `[E, D, I]`
    pub down: &'a Matrix,
    /// `[E D]`
    pub down_bias: Option<&'a Tensor>,
    /// Activation of the gate.
    pub act: GluAct,
}

/// What is fused with the experts.
#[derive(Clone, Copy, Debug)]
pub struct Mixture<'a> {
    /// Normalisation of x.
    pub norm: Option<Norm<'a>>,
    /// Factor of the sum over experts.
    pub alpha: f32,
    /// Added at the end `[T, D]`.
    pub residual: Option<&'a Tensor>,
    /// Experts without weights: routes to ids from E on.
    pub null: Option<Null<'a>>,
    /// Name under which what the products with down are given is [noted](Frame::note): `[T S, I]`, the row of slot j of token
    /// t is t S + j. Rows of slots without an expert may hold anything.
    pub down_note: Option<&'a str>,
}

impl Default for Mixture<'_> {
    fn default() -> Self {
        Self { norm: None, alpha: 1.0, residual: None, null: None, down_note: None }
    }
}

/// How the products of a mixture are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertPath {
    /// Each slot by itself: reads the weights of an expert for each.
    Routed,
    /// Slots of an expert together, in tiles: reads the weights of an expert for each tile.
    Grouped,
}

/// The path that reads fewer bytes, where each expert is as likely as the others: slots by themselves while there are fewer than
/// two for each expert that is chosen at all. Tiles cost the dispatch that groups the slots, and what they have too many rows.
pub fn expert_path(caps: &Caps, shape: ExpertShape) -> ExpertPath {
    let slots = shape.num_slots();
    let fits = slots <= u64::from(caps.workgroups);
    if fits && (slots as f64) < 2.0 * shape.chosen() { ExpertPath::Routed } else { ExpertPath::Grouped }
}

/// `y[t] = residual + alpha Σ_j w[t, j] · expert_e(norm(x[t]))`, e the j-th expert of token t, in the order of j. Choices without an
/// expert are left out. What [experts without weights](Null) give is added before what the others give.
///
/// Of few tokens only the weights of chosen experts are read, in two dispatches (three, where a matrix exceeds a binding); of
/// many tokens the rows of each expert are brought together ([`expert_path`]): two products, one dispatch before and one
/// behind. Either way the result is the same bits every time.
///
/// # Shapes
/// x `[T, D]`, routes u32 `[T, S, 2]` of expert and bits of its weight (as [`route`](crate::moe::route) makes them) → y `[T, D]`
///
/// # Errors
/// Shapes and element types that do not fit, integer activations with weights that are no integers, sizes over a limit of the
/// device.
pub fn mixture(
    frame: &mut Frame,
    x: &Tensor,
    routes: &Tensor,
    experts: &Experts<'_>,
    opts: &Mixture<'_>,
) -> Result<Tensor, OpError> {
    let [gate_up, down] = check(x, routes, experts, opts)?;
    if let Some(null) = opts.null {
        let x = match opts.norm {
            Some(Norm::Rms { weight, eps }) => rms_norm(frame, x, weight, eps)?,
            Some(Norm::Layer { weight, bias, eps }) => layer_norm(frame, x, weight, bias, eps)?,
            None => x.clone(),
        };
        let residual = null_experts(frame, &x, routes, gate_up.experts, &null, opts.alpha, opts.residual)?;
        let opts = Mixture { norm: None, residual: Some(&residual), null: None, ..*opts };
        return mixture(frame, &x, routes, experts, &opts);
    }
    let act = Act::Glu(experts.act);
    let bias = experts.gate_up_bias.map(Tensor::buffer);
    let into = Epilogue { bias, alpha: 1.0, act, residual: None };
    let bias = experts.down_bias.map(Tensor::buffer);
    let out = Epilogue { bias, alpha: 1.0, act: Act::Identity, residual: None };
    let note =
        |frame: &mut Frame, h: &Tensor| opts.down_note.into_iter().for_each(|name| frame.note(name, h));
    if expert_path(frame.gpu().caps(), gate_up) == ExpertPath::Grouped {
        let height = grouped_gemm::tile_height(frame.gpu().caps(), gate_up);
        let products = [(experts.gate_up, gate_up), (experts.down, down)];
        let groups = Groups::of(frame, routes, products, height)?;
        let x = Operand::new(frame, x, experts.gate_up, opts.norm, None)?;
        let h = product_rows(frame, gate_up, act, XRows::Tokens)?;
        groups.product(frame, &x, experts.gate_up, (into, gate_up, XRows::Tokens), 0, &h)?;
        note(frame, &h);
        let h = Operand::new(frame, &h, experts.down, None, None)?;
        let o = product_rows(frame, down, Act::Identity, XRows::Slots)?;
        groups.product(frame, &h, experts.down, (out, down, XRows::Slots), 1, &o)?;
        return combine(frame, &o, routes, down.experts, opts.alpha, opts.residual);
    }
    let x = Operand::new(frame, x, experts.gate_up, opts.norm, Some(&into))?;
    let h = product_rows(frame, gate_up, act, XRows::Tokens)?;
    routed(frame, &x, experts.gate_up, routes, (into, gate_up, XRows::Tokens), &h)?;
    note(frame, &h);
    let h = Operand::new(frame, &h, experts.down, None, None)?;
    if experts.down.parts.len() > 1 {
        let o = product_rows(frame, down, Act::Identity, XRows::Slots)?;
        routed(frame, &h, experts.down, routes, (out, down, XRows::Slots), &o)?;
        return combine(frame, &o, routes, down.experts, opts.alpha, opts.residual);
    }
    let out = Epilogue { alpha: opts.alpha, residual: opts.residual.map(Tensor::buffer), ..out };
    let y = product_rows(frame, down, Act::Identity, XRows::Weighted)?;
    routed(frame, &h, experts.down, routes, (out, down, XRows::Weighted), &y)?;
    Ok(y)
}

/// Experts of which not all are on the device.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// The number of the mixture, as its caller counts them.
    pub mixture: usize,
    /// Experts that there are.
    pub experts: u32,
    /// A later mixture, and the routes that it is likely to choose.
    pub guess: Option<(usize, Tensor)>,
}

/// [`mixture()`] of more experts than the device holds: `experts` are the P that lie there now, and the host takes part at a
/// [`BreakPoint`], which the frame notes. The products of the
/// slots lie in rows of their own and are added up at the end in the order of j, so the result does not depend on which
/// experts lie where, nor on how often the host runs the commands between: the same bits for every P. Path and tiles are
/// those of [`mixture()`] with all experts.
///
/// # Shapes
/// x `[T, D]`, routes u32 `[T, S, 2]` → y `[T, D]`; matrices `[P, N, K]`, biases of `max(P, S)` experts, in the order of places.
///
/// # Errors
/// As [`mixture()`].
pub fn mixture_in_places(
    frame: &mut Frame,
    x: &Tensor,
    routes: &Tensor,
    experts: &Experts<'_>,
    opts: &Mixture<'_>,
    elsewhere: Elsewhere,
) -> Result<Tensor, OpError> {
    if opts.null.is_some() {
        let want = "none, of experts that are not all on the device".into();
        return Err(OpError::Value { op: OP, what: "kinds of experts without weights", got: 1.0, want });
    }
    let [_, slots, _] = routes.dims(OP, "routes")?;
    let places = experts.gate_up.experts.max(slots);
    let [gate_up, down] = check_shapes(x, routes, experts, opts, places)?;
    let act = Act::Glu(experts.act);
    let bias = experts.gate_up_bias.map(Tensor::buffer);
    let into = Epilogue { bias, alpha: 1.0, act, residual: None };
    let bias = experts.down_bias.map(Tensor::buffer);
    let out = Epilogue { bias, alpha: 1.0, act: Act::Identity, residual: None };
    let all = ExpertShape { experts: elsewhere.experts.max(slots), ..gate_up };
    let path = expert_path(frame.gpu().caps(), all);
    // What outlives a run of the commands between must not share memory with what those take and give back.
    let fused = Some(&into).filter(|_| path == ExpertPath::Routed);
    let x = Operand::new(frame, x, experts.gate_up, opts.norm, fused)?;
    let o = product_rows(frame, down, Act::Identity, XRows::Slots)?;
    let here = frame.alloc(routes.shape(), DType::U32)?;
    let first = frame.recording().commands().len();
    let h = product_rows(frame, gate_up, act, XRows::Tokens)?;
    let (into, out) = ((into, gate_up, XRows::Tokens), (out, down, XRows::Slots));
    if path == ExpertPath::Grouped {
        let height = grouped_gemm::tile_height(frame.gpu().caps(), all);
        let products = [(experts.gate_up, gate_up), (experts.down, down)];
        let groups = Groups::of(frame, &here, products, height)?;
        groups.product(frame, &x, experts.gate_up, into, 0, &h)?;
        let h = Operand::new(frame, &h, experts.down, None, None)?;
        groups.product(frame, &h, experts.down, out, 1, &o)?;
    } else {
        routed(frame, &x, experts.gate_up, &here, into, &h)?;
        let h = Operand::new(frame, &h, experts.down, None, None)?;
        routed(frame, &h, experts.down, &here, out, &o)?;
    }
    let commands = first..frame.recording().commands().len();
    let Elsewhere { mixture, guess, .. } = elsewhere;
    frame.push_break(BreakPoint { commands, mixture, routes: routes.clone(), places: here, guess });
    combine(frame, &o, routes, all.experts, opts.alpha, opts.residual)
}

/// The product of each slot with the matrix of its expert: `y[t S + j] = x[t S + j] · W[e]ᵀ`, e the j-th expert of token t. Weights
/// of routes are left out of account; rows of slots without an expert are undefined. A matrix for each head is a product of this
/// kind too, with head h the expert of the h-th slot of every token.
///
/// # Shapes
/// x `[T S, K]`, routes u32 `[T, S, 2]`, w `[E, N, K]` → `[T S, N]`
///
/// # Errors
/// As [`mixture`].
pub fn linear_by_expert(
    frame: &mut Frame,
    x: &Tensor,
    routes: &Tensor,
    w: &Matrix,
) -> Result<Tensor, OpError> {
    const OP: &str = "linear_by_expert";
    let [tokens, slots, _] = routes.dims(OP, "routes")?;
    routes.expect_dtype(OP, "routes", DType::U32)?;
    routes.expect(OP, "routes", &[tokens, slots, 2])?;
    x.expect_dtype(OP, "x", DType::F32)?;
    x.expect(OP, "x", &[tokens.saturating_mul(slots), w.k])?;
    let shape = ExpertShape { tokens, slots, experts: w.experts, n: w.expert_rows(), k: w.k };
    let plain = Epilogue { bias: None, alpha: 1.0, act: Act::Identity, residual: None };
    let of = (plain, shape, XRows::Slots);
    let y = product_rows(frame, shape, Act::Identity, XRows::Slots)?;
    if expert_path(frame.gpu().caps(), shape) == ExpertPath::Routed {
        let x = Operand::new(frame, x, w, None, None)?;
        routed(frame, &x, w, routes, of, &y)?;
        return Ok(y);
    }
    let height = grouped_gemm::tile_height(frame.gpu().caps(), shape);
    let groups = Groups::of(frame, routes, [(w, shape), (w, shape)], height)?;
    let x = Operand::new(frame, x, w, None, None)?;
    groups.product(frame, &x, w, of, 0, &y)?;
    Ok(y)
}

/// Checks all operands. The shapes of both products.
fn check(
    x: &Tensor,
    routes: &Tensor,
    experts: &Experts<'_>,
    opts: &Mixture<'_>,
) -> Result<[ExpertShape; 2], OpError> {
    check_shapes(x, routes, experts, opts, experts.gate_up.experts)
}

/// The same, with biases of `count` experts, which the shapes tell.
fn check_shapes(
    x: &Tensor,
    routes: &Tensor,
    experts: &Experts<'_>,
    opts: &Mixture<'_>,
    count: u32,
) -> Result<[ExpertShape; 2], OpError> {
    let Experts { gate_up, gate_up_bias, down, down_bias, act } = *experts;
    let [tokens, d] = x.dims(OP, "x")?;
    x.expect_dtype(OP, "x", DType::F32)?;
    let [_, slots, _] = routes.dims(OP, "routes")?;
    routes.expect_dtype(OP, "routes", DType::U32)?;
    routes.expect(OP, "routes", &[tokens, slots, 2])?;
    let value = |what, got: u32, want: String| Err(OpError::Value { op: OP, what, got: got.into(), want });
    if down.experts != gate_up.experts {
        return value("experts of down", down.experts, format!("{} as gate and up have", gate_up.experts));
    }
    if gate_up.k != d {
        return value("columns of gate and up", gate_up.k, format!("{d}, the channels of x"));
    }
    if gate_up.expert_rows() != 2 * down.k {
        return value(
            "rows of gate and up",
            gate_up.expert_rows(),
            format!("{}, twice the columns of down", 2 * down.k),
        );
    }
    let cap = Act::Glu(act).cap();
    if !(cap > 0.0 && cap.is_finite()) {
        let want = "positive and finite".into();
        return Err(OpError::Value { op: OP, what: "cap of the activation", got: cap.into(), want });
    }
    let optional = |tensor: Option<&Tensor>, name, want: &[u32]| match tensor {
        Some(tensor) => {
            tensor.expect_dtype(OP, name, DType::F32)?;
            tensor.expect(OP, name, want)
        }
        None => Ok(()),
    };
    let biases = |w: &Matrix| w.expert_rows().saturating_mul(count);
    optional(gate_up_bias, "bias of gate and up", &[biases(gate_up)])?;
    optional(down_bias, "bias of down", &[biases(down)])?;
    optional(opts.residual, "residual", &[tokens, down.expert_rows()])?;
    let shape = |w: &Matrix| ExpertShape { tokens, slots, experts: count, n: w.expert_rows(), k: w.k };
    Ok([shape(gate_up), shape(down)])
}

/// Rows of x as products take them.
enum Operand<'a> {
    Float(Tensor, Option<Norm<'a>>),
    Codes(Quantized),
}

impl<'a> Operand<'a> {
    /// What a matrix wants done with x. `fused`: the epilogue of a product that may take an RMS norm along.
    fn new(
        frame: &mut Frame,
        x: &Tensor,
        w: &Matrix,
        norm: Option<Norm<'a>>,
        fused: Option<&Epilogue<'_>>,
    ) -> Result<Self, OpError> {
        let input = &w.input;
        let transform = RowTransform { norm, scale: input.scale.as_ref(), mix: row_mix(&input.mix) };
        if input.activation != QuantActivation::Float {
            return Ok(if frame.gpu().caps().integer_dot {
                Self::Codes(quantize_rows(frame, x, &transform, input.activation)?)
            } else {
                Self::Float(fake_quantize_rows(frame, x, &transform, input.activation)?, None)
            });
        }
        if !input.is_plain() {
            return Ok(Self::Float(transform_rows(frame, x, &transform)?, None));
        }
        let takes = |frame: &Frame| fused.is_some_and(|epilogue| is_fused(frame, norm, epilogue));
        Ok(match norm {
            Some(Norm::Rms { weight, eps }) if !takes(frame) => {
                Self::Float(rms_norm(frame, x, weight, eps)?, None)
            }
            Some(Norm::Layer { weight, bias, eps }) => {
                Self::Float(layer_norm(frame, x, weight, bias, eps)?, None)
            }
            norm => Self::Float(x.clone(), norm),
        })
    }
}

/// Room for what a product gives.
fn product_rows(frame: &mut Frame, shape: ExpertShape, act: Act, rows: XRows) -> Result<Tensor, OpError> {
    let y_rows = if rows == XRows::Weighted { shape.tokens } else { shape.num_slots() as u32 };
    frame.alloc(&[y_rows, act.columns(shape.n)], DType::F32)
}

/// The products of slots, each by itself, or their sums, into y.
fn routed(
    frame: &mut Frame,
    x: &Operand<'_>,
    w: &Matrix,
    routes: &Tensor,
    (epilogue, shape, rows): (Epilogue<'_>, ExpertShape, XRows),
    y: &Tensor,
) -> Result<(), OpError> {
    let (routes, result) = (routes.buffer(), y.buffer());
    match x {
        Operand::Float(x, norm) => {
            let (parts, norm) = (parts(w), fused_norm(*norm));
            let args = routed_gemv::Args { x: x.buffer(), parts: &parts, norm, epilogue, routes, y: result };
            routed_gemv::record(frame.recorder(), args, shape, rows)?;
        }
        Operand::Codes(x) => {
            let parts = int_parts(w)?;
            let (x_codes, x_scales) = (x.codes.buffer(), x.scales.buffer());
            let args =
                routed_gemv_int::Args { x_codes, x_scales, parts: &parts, epilogue, routes, y: result };
            routed_gemv_int::record(frame.recorder(), args, shape, rows)?;
        }
    }
    Ok(())
}

/// Slots by their experts, in tiles that serve both products.
struct Groups {
    height: u32,
    slots: SlotGroups,
}

impl Groups {
    fn of(
        frame: &mut Frame,
        routes: &Tensor,
        products: [(&Matrix, ExpertShape); 2],
        height: u32,
    ) -> Result<Self, OpError> {
        let caps = frame.gpu().caps().clone();
        let experts = products[0].0.experts;
        let mut columns = [1; 2];
        for (columns, (w, shape)) in columns.iter_mut().zip(products) {
            let codes = w.input.activation != QuantActivation::Float && caps.integer_dot;
            for part in &w.parts {
                let of = if codes { grouped_gemm_int::columns } else { grouped_gemm::columns };
                *columns = of(&caps, shape, part.format, height)?.max(*columns);
            }
        }
        Ok(Self { height, slots: group(frame, routes, experts, height, columns)? })
    }

    /// The products of all slots with one matrix, the `grid`-th of those that the groups were made for, into y.
    fn product(
        &self,
        frame: &mut Frame,
        x: &Operand<'_>,
        w: &Matrix,
        (epilogue, shape, rows): (Epilogue<'_>, ExpertShape, XRows),
        grid: usize,
        y: &Tensor,
    ) -> Result<(), OpError> {
        let grid: &Grid = &self.slots.grids[grid];
        let parts = match x {
            Operand::Float(..) => parts(w),
            Operand::Codes(_) => int_parts(w)?,
        };
        let x_rows = match x {
            Operand::Float(x, _) => x.buffer(),
            Operand::Codes(x) => x.codes.buffer(),
        };
        let args = GroupedArgs {
            x: x_rows,
            parts: &parts,
            epilogue,
            groups: self.slots.groups.buffer(),
            max_tiles: self.slots.max_tiles,
            height: self.height,
            grid,
            y: y.buffer(),
        };
        match x {
            Operand::Float(..) => grouped_gemm::record(frame.recorder(), args, shape, rows)?,
            Operand::Codes(x) => {
                grouped_gemm_int::record(frame.recorder(), args, x.scales.buffer(), shape, rows)?;
            }
        }
        Ok(())
    }
}
