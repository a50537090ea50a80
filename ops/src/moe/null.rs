//! Experts without weights.

use girih_kernels::moe::{NullExperts, null_experts as kernel};

use crate::{DType, Frame, OpError, Tensor};

/// The experts without weights of a mixture: ids behind those with weights.
#[derive(Clone, Copy, Debug)]
pub struct Null<'a> {
    /// How many there are of each kind; ids behind them are zero experts.
    pub kinds: NullExperts,
    /// Of C constant experts W_c `[C, 2, D]` and v `[C, D]`.
    pub constant: Option<[&'a Tensor; 2]>,
}

/// What experts without weights give: `y[t] = residual[t] + alpha Σ_j w[t, j] · e_j(x[t])` over the routes to ids from `experts` on,
/// in this order (MoE++, 2410.07348):
///
/// - constant: `e(x) = a_1 x + a_2 v`, `a = softmax(W_c x)`
/// - copy: `e(x) = x` (the identity experts of LongCat-Flash)
/// - zero: nothing, as routes to experts with weights give nothing here
///
/// # Shapes
/// x `[T, D]`, routes u32 `[T, K, 2]` of expert and bits of its weight, residual `[T, D]` → `[T, D]`
///
/// # Errors
/// Shapes or types that do not fit, constant experts without W_c and v, K above 64.
pub fn null_experts(
    frame: &mut Frame,
    x: &Tensor,
    routes: &Tensor,
    experts: u32,
    null: &Null<'_>,
    alpha: f32,
    residual: Option<&Tensor>,
) -> Result<Tensor, OpError> {
    let op = "null_experts";
    let [tokens, d] = x.dims(op, "x")?;
    x.expect_dtype(op, "x", DType::F32)?;
    let [_, k, _] = routes.dims(op, "routes")?;
    routes.expect_dtype(op, "routes", DType::U32)?;
    routes.expect(op, "routes", &[tokens, k, 2])?;
    let c = null.kinds.constant;
    match null.constant {
        Some([mix, constants]) => {
            mix.expect_dtype(op, "mix", DType::F32)?;
            mix.expect(op, "mix", &[c, 2, d])?;
            constants.expect_dtype(op, "constants", DType::F32)?;
            constants.expect(op, "constants", &[c, d])?;
        }
        None if c > 0 => {
            let want = "0 without their weights".into();
            return Err(OpError::Value { op, what: "constant experts", got: c.into(), want });
        }
        None => {}
    }
    if let Some(residual) = residual {
        residual.expect_dtype(op, "residual", DType::F32)?;
        residual.expect(op, "residual", &[tokens, d])?;
    }
    let y = frame.alloc(&[tokens, d], DType::F32)?;
    let args = kernel::Args {
        x: x.buffer(),
        routes: routes.buffer(),
        constant: null.constant.map(|of| of.map(Tensor::buffer)),
        residual: residual.map(Tensor::buffer),
        y: y.buffer(),
    };
    kernel::record(frame.recorder(), args, [tokens, k, d], (experts, null.kinds), alpha)?;
    Ok(y)
}
