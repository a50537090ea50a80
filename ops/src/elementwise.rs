//! Sums and activations, element by element.

use girih_kernels::elementwise::{activation as act_kernel, glu as glu_kernel, scale_add as add_kernel};

pub use girih_kernels::elementwise::Activation;
pub use girih_kernels::elementwise::glu::Glu;

use crate::{DType, Frame, OpError, Tensor};

/// Where gate and up lie in one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GluLayout {
    /// Rows `[gate | up]` (Phi-3, GLM).
    Concat,
    /// Gate at even, up at odd places (gpt-oss).
    Interleaved,
}

fn elements(op: &'static str, x: &Tensor) -> Result<u32, OpError> {
    x.expect_dtype(op, "x", DType::F32)?;
    u32::try_from(x.len()).map_err(|_| OpError::Value {
        op,
        what: "number of elements",
        got: x.len() as f64,
        want: "below 2^32".into(),
    })
}

/// Sum: `y = a + b`. b has the shape of a, or is one row `[C]` that is added to every row (a bias).
///
/// # Shapes
/// a `[.., C]`, b `[.., C]` or `[C]` → `[.., C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn add(frame: &mut Frame, a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    sum(frame, "add", a, 1.0, b)
}

/// Scaled sum: `y = a + alpha · b`. b as in [`add`].
///
/// # Shapes
/// a `[.., C]`, b `[.., C]` or `[C]` → `[.., C]`
///
/// # Errors
/// Shapes that do not fit.
pub fn scale_add(frame: &mut Frame, a: &Tensor, alpha: f32, b: &Tensor) -> Result<Tensor, OpError> {
    sum(frame, "scale_add", a, alpha, b)
}

fn sum(frame: &mut Frame, op: &'static str, a: &Tensor, alpha: f32, b: &Tensor) -> Result<Tensor, OpError> {
    let len = elements(op, a)?;
    b.expect_dtype(op, "b", DType::F32)?;
    let row_len = if b.shape() == a.shape() {
        None
    } else {
        let channels = a.shape().last().copied().unwrap_or(0);
        if b.shape() != [channels] {
            let want = format!("{:?} or [{channels}]", a.shape());
            return Err(OpError::Shape { op, tensor: "b", got: b.shape().to_vec(), want });
        }
        Some(channels)
    };
    let y = frame.alloc(a.shape(), DType::F32)?;
    let args = add_kernel::Args { a: a.buffer(), b: b.buffer(), y: y.buffer() };
    add_kernel::record(frame.recorder(), args, len, alpha, row_len)?;
    Ok(y)
}

/// Activation function of each element: `y = act(x)`.
///
/// # Shapes
/// x of any shape → the same
///
/// # Errors
/// A tensor that is not f32.
pub fn activation(frame: &mut Frame, x: &Tensor, act: Activation) -> Result<Tensor, OpError> {
    let len = elements("activation", x)?;
    let y = frame.alloc(x.shape(), DType::F32)?;
    let args = act_kernel::Args { x: x.buffer(), y: y.buffer() };
    act_kernel::record(frame.recorder(), args, len, act)?;
    Ok(y)
}

/// Gated activation: `y = act(gate) · up`, or the clamped kind of [`Glu`]. An [`Activation`] converts into a [`Glu`].
///
/// # Shapes
/// gate `[T, F]`, up `[T, F]` → `[T, F]`
///
/// # Errors
/// Shapes that do not fit.
pub fn glu(frame: &mut Frame, gate: &Tensor, up: &Tensor, act: impl Into<Glu>) -> Result<Tensor, OpError> {
    elements("glu", gate)?;
    let [num_rows, num_channels] = gate.dims("glu", "gate")?;
    up.expect_dtype("glu", "up", DType::F32)?;
    up.expect("glu", "up", gate.shape())?;
    let y = frame.alloc(gate.shape(), DType::F32)?;
    let args = glu_kernel::Args { gate: gate.buffer(), up: up.buffer(), y: y.buffer() };
    let layout = glu_kernel::Layout::Separate;
    glu_kernel::record(frame.recorder(), args, num_rows, num_channels, act.into(), layout)?;
    Ok(y)
}

/// [`glu`] of a gate and an up projection that are one tensor.
///
/// # Shapes
/// gate_up `[T, 2F]` → `[T, F]`
///
/// # Errors
/// Shapes that do not fit.
pub fn glu_fused(
    frame: &mut Frame,
    gate_up: &Tensor,
    layout: GluLayout,
    act: impl Into<Glu>,
) -> Result<Tensor, OpError> {
    elements("glu_fused", gate_up)?;
    let [num_rows, both] = gate_up.dims("glu_fused", "gate_up")?;
    if both == 0 || !both.is_multiple_of(2) {
        let want = "[T, 2F]: an even, positive number of channels".into();
        return Err(OpError::Shape {
            op: "glu_fused",
            tensor: "gate_up",
            got: gate_up.shape().to_vec(),
            want,
        });
    }
    let y = frame.alloc(&[num_rows, both / 2], DType::F32)?;
    let args = glu_kernel::Args { gate: gate_up.buffer(), up: gate_up.buffer(), y: y.buffer() };
    let layout = match layout {
        GluLayout::Concat => glu_kernel::Layout::Concat,
        GluLayout::Interleaved => glu_kernel::Layout::Interleaved,
    };
    glu_kernel::record(frame.recorder(), args, num_rows, both / 2, act.into(), layout)?;
    Ok(y)
}
