//! Memory layers: slots by product keys, sums of the rows of a table, experts of one neuron.

use girih_kernels::memory::{neurons, product_keys as keys_kernel, weighted_rows as rows_kernel};

pub use girih_kernels::memory::{NeuronAct, SlotWeight};

use crate::{DType, Frame, Matrix, Mix, OpError, Tensor};

/// The K best of the R C slots of a memory for each query (product keys: Lample et al. 1907.05242; PEER 2407.04153, `OmniMoE`
/// 2602.05711): slot `i C + j` has the score `rows[i] + columns[j]`, rounded to f32. The best slot comes first; among equals the one
/// of the better row, then of the better column; of equal rows or columns the one with the lower index is the better. NaN is never
/// chosen; slots that are missing have the id 0xffffffff and the weight 0. What slots weigh: [`SlotWeight`].
///
/// Scores may be logits or their log softmax: the order and the weights are the same but for [`SlotWeight::Score`] and
/// [`SlotWeight::Relu`]. Heads are queries of their own; `[T H, K, 2]` may be [reshaped](Tensor::reshape) to the `H K` slots of a token.
///
/// # Shapes
/// rows `[Q, R]`, columns `[Q, C]` → u32 `[Q, K, 2]`: slot, bits of its f32 weight
///
/// # Errors
/// Shapes or types that do not fit, no slots, more than 64 or than there are.
pub fn product_keys(
    frame: &mut Frame,
    rows: &Tensor,
    columns: &Tensor,
    k: u32,
    weight: SlotWeight,
) -> Result<Tensor, OpError> {
    let op = "product_keys";
    let [queries, r] = rows.dims(op, "rows")?;
    let [_, c] = columns.dims(op, "columns")?;
    rows.expect_dtype(op, "rows", DType::F32)?;
    columns.expect_dtype(op, "columns", DType::F32)?;
    columns.expect(op, "columns", &[queries, c])?;
    let routes = frame.alloc(&[queries, k, 2], DType::U32)?;
    let args = keys_kernel::Args { rows: rows.buffer(), columns: columns.buffer(), routes: routes.buffer() };
    keys_kernel::record(frame.recorder(), args, [queries, r, c, k], weight)?;
    Ok(routes)
}

/// Tokens and slots of routes to a table whose rows are as they are stored.
fn check(op: &'static str, routes: &Tensor, table: &Matrix) -> Result<[u32; 2], OpError> {
    let [tokens, slots, _] = routes.dims(op, "routes")?;
    routes.expect_dtype(op, "routes", DType::U32)?;
    routes.expect(op, "routes", &[tokens, slots, 2])?;
    if table.input.scale.is_some() || !matches!(table.input.mix, Mix::None) {
        return Err(OpError::Unsupported { op, what: "a table of mixed channels".into() });
    }
    Ok([tokens, slots])
}

/// Weighted sums of rows of a table: `y[t] = residual[t] + alpha Σ_s w[t, s] · table[slot[t, s]]`, in the order of s (an embedding bag;
/// the values of a memory layer). Slots that the table does not have give nothing. A table in several parts takes one dispatch for
/// each, and sums by parts.
///
/// # Shapes
/// routes u32 `[T, S, 2]` of slot and bits of its weight, table `[N, C]`, residual `[T, C]` → `[T, C]`
///
/// # Errors
/// Shapes or types that do not fit; a table whose rows are scaled or mixed to meet such activations.
pub fn weighted_rows(
    frame: &mut Frame,
    routes: &Tensor,
    table: &Matrix,
    alpha: f32,
    residual: Option<&Tensor>,
) -> Result<Tensor, OpError> {
    let op = "weighted_rows";
    let [num_tokens, num_slots] = check(op, routes, table)?;
    if let Some(residual) = residual {
        residual.expect_dtype(op, "residual", DType::F32)?;
        residual.expect(op, "residual", &[num_tokens, table.k])?;
    }
    let y = frame.alloc(&[num_tokens, table.k], DType::F32)?;
    for (i, part) in table.parts.iter().enumerate() {
        let (row0, rows) = (part.row0, part.rows);
        let shape = rows_kernel::Shape { num_tokens, num_slots, num_channels: table.k, row0, rows };
        let args = rows_kernel::Args {
            routes: routes.buffer(),
            table: &part.buffer,
            scales: part.scales.as_ref(),
            residual: residual.filter(|_| i == 0).map(Tensor::buffer),
            y: y.buffer(),
        };
        rows_kernel::record(frame.recorder(), args, shape, part.format, (alpha, i > 0))?;
    }
    Ok(y)
}

/// The products of x with the rows of its slots, as weights of the same slots: `w'[t, s] = w[t, s] · act(table[slot[t, s]] · x[t])`.
/// With [`weighted_rows`] of another table these are experts of one neuron (PEER, `OmniMoE`): `y[t] = Σ_s w[t, s] act(u_s · x[t]) v_s`.
/// Slots that the table does not have become 0xffffffff with the weight 0.
///
/// # Shapes
/// x `[T, C]`, routes u32 `[T, S, 2]`, table `[N, C]` → u32 `[T, S, 2]`
///
/// # Errors
/// Shapes or types that do not fit; a table whose rows are scaled or mixed to meet such activations.
pub fn neuron_weights(
    frame: &mut Frame,
    x: &Tensor,
    routes: &Tensor,
    table: &Matrix,
    act: NeuronAct,
) -> Result<Tensor, OpError> {
    let op = "neuron_weights";
    let [num_tokens, token_slots] = check(op, routes, table)?;
    x.expect_dtype(op, "x", DType::F32)?;
    x.expect(op, "x", &[num_tokens, table.k])?;
    let y = frame.alloc(&[num_tokens, token_slots, 2], DType::U32)?;
    for part in &table.parts {
        let (row0, rows, n) = (part.row0, part.rows, table.n);
        let shape = neurons::Shape { num_tokens, token_slots, num_channels: table.k, row0, rows, n };
        let args = neurons::Args {
            routes: routes.buffer(),
            table: &part.buffer,
            scales: part.scales.as_ref(),
            x: x.buffer(),
            y: y.buffer(),
        };
        neurons::record(frame.recorder(), args, shape, part.format, act)?;
    }
    Ok(y)
}
