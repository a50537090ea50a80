//! Rows by index.

use girih_kernels::embed::{embedding as kernel, gather_rows as gather_kernel};

use crate::{DType, Frame, Matrix, Mix, OpError, Tensor};

/// Token embedding: `y[t] = scale · table[token_ids[t]]`. Ids that the table does not have give zeros. A table in
/// several parts takes one dispatch for each.
///
/// # Shapes
/// token_ids u32 `[T]`, table `[N, C]` → `[T, C]`
///
/// # Errors
/// Shapes or types that do not fit; a table whose rows are scaled or mixed to meet such activations.
pub fn embedding(
    frame: &mut Frame,
    token_ids: &Tensor,
    table: &Matrix,
    scale: f32,
) -> Result<Tensor, OpError> {
    token_ids.expect_dtype("embedding", "token_ids", DType::U32)?;
    let [num_tokens] = token_ids.dims("embedding", "token_ids")?;
    let y = frame.alloc(&[num_tokens, table.k], DType::F32)?;
    if table.input.scale.is_some() || !matches!(table.input.mix, Mix::None) {
        let what = "a table of mixed channels".into();
        return Err(OpError::Unsupported { op: "embedding", what });
    }
    for part in &table.parts {
        let shape =
            kernel::Shape { num_tokens, num_channels: table.k, row0: part.row0, rows: part.rows, n: table.n };
        let args = kernel::Args {
            token_ids: token_ids.buffer(),
            table: &part.buffer,
            scales: part.scales.as_ref(),
            y: y.buffer(),
        };
        kernel::record(frame.recorder(), args, shape, part.format, scale)?;
    }
    Ok(y)
}

/// Rows of a tensor: `y[s] = x[rows[s]]`, zeros where `rows[s] >= T`.
///
/// # Shapes
/// x `[T, C]`, rows u32 `[S]` → `[S, C]`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn gather_rows(frame: &mut Frame, x: &Tensor, rows: &Tensor) -> Result<Tensor, OpError> {
    rows.expect_dtype("gather_rows", "rows", DType::U32)?;
    let [num_tokens, num_channels] = x.dims("gather_rows", "x")?;
    let [num_rows] = rows.dims("gather_rows", "rows")?;
    let y = frame.alloc(&[num_rows, num_channels], x.dtype())?;
    let args = gather_kernel::Args { x: x.buffer(), rows: rows.buffer(), y: y.buffer() };
    gather_kernel::record(frame.recorder(), args, num_rows, num_tokens, num_channels)?;
    Ok(y)
}
