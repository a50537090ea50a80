//! Mixture of experts: from logits to experts, slots by experts, sums of experts. The experts are in [`mixture()`](crate::mixture()).

mod null;
mod routers;

use girih_kernels::moe::{combine as combine_kernel, group as group_kernel, route as route_kernel};
use girih_kernels::{Buffer, Grid};

pub use girih_kernels::moe::{Choose, Groups, NONE, Normalise, NullExperts, Router, Score, Weight};
pub use null::{Null, null_experts};
pub use routers::{Recurrent, choose_tokens, random_routes, recurrent_logits, residual_logits};

use crate::{DType, Frame, OpError, Tensor};

/// What a router has beside the logits.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouterVectors<'a> {
    /// Added to the score for the choice `[E]`.
    pub bias: Option<&'a Tensor>,
    /// Factor of the weight `[E]`.
    pub expert_scale: Option<&'a Tensor>,
    /// What the routes say in the place of each expert, u32 `[E]`: where E experts of several layers lie in one
    /// [pool](crate::Matrix::pool) (ReXMoE, 2510.17483). An expert that the pool does not have is like [`NONE`].
    pub table: Option<&'a Tensor>,
}

/// The experts of each token and their weights, as [`Router`] says. The better key first, the lower index among equals; -0 is 0.
/// An expert whose logit is NaN is not chosen; slots for which there is none have the expert [`NONE`] and the weight 0.
///
/// # Shapes
/// logits `[T, E]`, bias, expert_scale, u32 table `[E]` → u32 `[T, K, 2]`: expert, bits of its f32 weight
///
/// # Errors
/// Shapes or types that do not fit, a router that asks for more experts, groups or tokens' experts than there are or than
/// [`route_kernel::check`] allows.
pub fn route(
    frame: &mut Frame,
    logits: &Tensor,
    router: &Router,
    vectors: RouterVectors<'_>,
) -> Result<Tensor, OpError> {
    let op = "route";
    let [tokens, _] = logits.dims(op, "logits")?;
    logits.expect_dtype(op, "logits", DType::F32)?;
    logits.expect(op, "logits", &[tokens, router.experts])?;
    route_kernel::check(router)?;
    let RouterVectors { bias, expert_scale, table } = vectors;
    for (tensor, name, dtype) in
        [(bias, "bias", DType::F32), (expert_scale, "expert_scale", DType::F32), (table, "table", DType::U32)]
    {
        if let Some(tensor) = tensor {
            tensor.expect_dtype(op, name, dtype)?;
            tensor.expect(op, name, &[router.experts])?;
        }
    }
    let routes = frame.alloc(&[tokens, router.k, 2], DType::U32)?;
    let args = route_kernel::Args {
        logits: logits.buffer(),
        bias: bias.map(Tensor::buffer),
        expert_scale: expert_scale.map(Tensor::buffer),
        table: table.map(Tensor::buffer),
        routes: routes.buffer(),
    };
    route_kernel::record(frame.recorder(), args, router, tokens)?;
    Ok(routes)
}

/// Expert and weight of each slot, of the words of routes.
pub fn decode_routes(words: &[u32]) -> Vec<(u32, f32)> {
    words.as_chunks().0.iter().map(|&[expert, weight]| (expert, f32::from_bits(weight))).collect()
}

/// Slots by their experts, in tiles.
#[derive(Clone, Debug)]
pub struct SlotGroups {
    /// u32: tiles `[max_tiles, 4]` (expert, first row, rows, 0), those behind the last with no rows; then the slot of each row.
    pub groups: Tensor,
    /// Grids of two products: columns along x, tiles along y.
    pub grids: [Grid; 2],
    /// Tiles that there is room for.
    pub max_tiles: u32,
}

/// Brings the slots of each expert together, in their order, in tiles of at most `height`. `columns`: workgroups along x of two
/// products that take the tiles. Slots whose expert is none of `experts` are in no tile.
///
/// # Shapes
/// routes u32 `[T, K, 2]`
///
/// # Errors
/// Shapes or types that do not fit, more experts than a router may have, tiles of no slots, more tiles than workgroups along an axis.
pub fn group(
    frame: &mut Frame,
    routes: &Tensor,
    experts: u32,
    height: u32,
    columns: [u32; 2],
) -> Result<SlotGroups, OpError> {
    let op = "group";
    let [tokens, k, _] = routes.dims(op, "routes")?;
    routes.expect_dtype(op, "routes", DType::U32)?;
    routes.expect(op, "routes", &[tokens, k, 2])?;
    let Some(slots) = tokens.checked_mul(k) else {
        let got = f64::from(tokens) * f64::from(k);
        return Err(OpError::Value { op, what: "slots", got, want: "below 2^32".into() });
    };
    let max_tiles = group_kernel::max_tiles(slots, experts, height);
    let words = group_kernel::groups_bytes(slots, max_tiles) / 4;
    let Ok(words) = u32::try_from(words) else {
        return Err(OpError::Value { op, what: "words", got: words as f64, want: "below 2^32".into() });
    };
    let groups = frame.alloc(&[words], DType::U32)?;
    let grids = frame.gpu().alloc_indirect(group_kernel::GRIDS_BYTES)?;
    let args = group_kernel::Args { routes: routes.buffer(), groups: groups.buffer(), grids: &grids };
    group_kernel::record(frame.recorder(), args, [slots, experts, height], columns)?;
    let grid = |i: usize| {
        let args = grids.slice(16 * i as u64, Grid::BYTES).unwrap_or_else(|| grids.clone());
        Grid::Indirect { args, most: [columns[i], max_tiles, 1] }
    };
    Ok(SlotGroups { groups, grids: [grid(0), grid(1)], max_tiles })
}

/// `y[t] = residual[t] + alpha Σ_j w[t, j] · o[t, j]` in the order of j. Slots whose expert is none of the first `experts` are left
/// out: those without one, and [experts without weights](NullExperts).
///
/// # Shapes
/// o `[T K, N]`, routes u32 `[T, K, 2]`, residual `[T, N]` → `[T, N]`
///
/// # Errors
/// Shapes or types that do not fit.
pub fn combine(
    frame: &mut Frame,
    o: &Tensor,
    routes: &Tensor,
    experts: u32,
    alpha: f32,
    residual: Option<&Tensor>,
) -> Result<Tensor, OpError> {
    let op = "combine";
    let [tokens, k, _] = routes.dims(op, "routes")?;
    routes.expect_dtype(op, "routes", DType::U32)?;
    routes.expect(op, "routes", &[tokens, k, 2])?;
    let [slots, n] = o.dims(op, "o")?;
    o.expect_dtype(op, "o", DType::F32)?;
    o.expect(op, "o", &[tokens.saturating_mul(k), n])?;
    if let Some(residual) = residual {
        residual.expect_dtype(op, "residual", DType::F32)?;
        residual.expect(op, "residual", &[tokens, n])?;
    }
    let y = frame.alloc(&[tokens, n], DType::F32)?;
    if slots > 0 {
        let residual: Option<&Buffer> = residual.map(Tensor::buffer);
        let args = combine_kernel::Args { o: o.buffer(), routes: routes.buffer(), residual, y: y.buffer() };
        combine_kernel::record(frame.recorder(), args, [tokens, k, n], experts, alpha)?;
    }
    Ok(y)
}
