//! Products with the matrices of experts W `[E, N, K]`: what those of few and of many rows share.
//!
//! A slot is one choice of one token: slot `t S + j` is the j-th of the S experts of token t. What belongs to slots lies in
//! this order.

pub(super) mod bench;

use std::ops::Range;

use super::Act;
use super::product::{Epilogue, EpilogueKind, Params, Part, Shape};
use super::reference::{self, Finish};
use super::tuning::Recorded;
use crate::buffer::Buffer;
use crate::case::hash;
use crate::choice::Launch;
use crate::error::KernelError;
use crate::grid::Grid;
use crate::rows;
use crate::spec::Cost;
use crate::twin::TwinCall;

/// T tokens with S experts each, of E with N rows of K channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertShape {
    /// Tokens T.
    pub tokens: u32,
    /// Experts of a token S.
    pub slots: u32,
    /// Experts E.
    pub experts: u32,
    /// Rows of W of an expert.
    pub n: u32,
    /// Channels.
    pub k: u32,
}

/// What rows of x are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XRows {
    /// Tokens: x `[T, K]`, y `[T S, N]`.
    Tokens,
    /// Slots: x `[T S, K]`, y `[T S, N]`.
    Slots,
    /// Slots, added up with their weights: x `[T S, K]`, y `[T, N]`.
    Weighted,
}

impl ExpertShape {
    /// Slots of all tokens.
    pub fn num_slots(self) -> u64 {
        rows::product([self.tokens.into(), self.slots.into()])
    }

    /// Experts that are chosen at least once, where each is as likely: `E (1 - (1 - S / E)^T)`.
    pub fn chosen(self) -> f64 {
        let share = f64::from(self.slots) / f64::from(self.experts.max(1));
        f64::from(self.experts) * (1.0 - (1.0 - share).powf(self.tokens.into()))
    }

    /// The product of one slot.
    pub(super) fn of_slot(self) -> Shape {
        Shape { m: 1, n: self.n, k: self.k }
    }

    pub(super) fn x_rows(self, x: XRows) -> u64 {
        if x == XRows::Tokens { self.tokens.into() } else { self.num_slots() }
    }

    fn y_rows(self, x: XRows) -> u64 {
        if x == XRows::Weighted { self.tokens.into() } else { self.num_slots() }
    }

    /// Checks the sizes, and that all but a sum has no residual.
    pub(super) fn check(
        self,
        kernel: &'static str,
        x: XRows,
        parts: &[Part<'_>],
        epilogue: &Epilogue<'_>,
        y: &Buffer,
    ) -> Result<(), KernelError> {
        let glu = epilogue.act.is_glu();
        self.of_slot().check(kernel, glu)?;
        let bad = |field, got: u64, must_be| Err(KernelError::BadParam { kernel, field, got, must_be });
        if self.slots == 0 || self.slots > self.experts {
            return bad("experts of a token", self.slots.into(), "1 to the number of experts");
        }
        if u32::try_from(self.num_slots()).is_err() {
            return bad("slots", self.num_slots(), "below 2^32");
        }
        if x == XRows::Weighted && (epilogue.act != Act::Identity || parts.len() > 1) {
            return bad(
                "parts of W, or activations, of a sum",
                parts.len() as u64,
                "one part, no activation",
            );
        }
        if x != XRows::Weighted && epilogue.residual.is_some() {
            return bad("residuals of slots", 1, "of a sum");
        }
        if let Some(part) =
            parts.iter().find(|p| !(p.row0.is_multiple_of(self.n) && p.rows.is_multiple_of(self.n)))
        {
            return bad("rows of a part", part.rows.into(), "those of whole experts");
        }
        let y_bytes = rows::product([4, self.y_rows(x), epilogue.act.columns(self.n).into()]);
        let bias_bytes = rows::product([4, self.experts.into(), self.n.into()]);
        let bias = ("bias", epilogue.bias, bias_bytes);
        rows::check_sizes(kernel, [bias, ("residual", epilogue.residual, y_bytes), ("y", Some(y), y_bytes)])
    }

    /// Those of the product with one part of W.
    pub(super) fn params(self, x: XRows, part: &Part<'_>, epilogue: &Epilogue<'_>) -> Params {
        let whole = Part { row0: 0, rows: self.n, ..*part };
        Params {
            first_expert: part.row0 / self.n,
            num_experts: part.rows / self.n,
            ..self.routed(x, Params::of(self.of_slot(), &whole, epilogue))
        }
    }

    /// Those of the product with all of W, nothing behind it.
    pub(super) fn plain_params(self, x: XRows) -> Params {
        self.routed(x, Params::plain(self.of_slot(), self.n))
    }

    /// Those of test cases.
    pub(super) fn params_of_case(self, x: XRows, epilogue: EpilogueKind) -> Params {
        self.routed(x, Params::of_case(self.of_slot(), epilogue))
    }

    fn routed(self, x: XRows, params: Params) -> Params {
        Params {
            num_m: self.tokens,
            num_slots: self.slots,
            x_slots: if x == XRows::Tokens { self.slots } else { 1 },
            num_experts: self.experts,
            split_k8: self.of_slot().num_k8(),
            ..params
        }
    }
}

/// Buffers of a grouped product.
#[derive(Clone, Copy, Debug)]
pub struct GroupedArgs<'a> {
    /// Activations, as [`XRows`] says.
    pub x: &'a Buffer,
    /// W of all experts, each part with whole ones.
    pub parts: &'a [Part<'a>],
    /// Behind the product; its bias is `[E, N]`. There is no residual.
    pub epilogue: Epilogue<'a>,
    /// Tiles `[max_tiles, 4]` (expert, first row, rows, 0), those behind the last with no rows; the slot of each row.
    pub groups: &'a Buffer,
    /// Tiles that `groups` has room for.
    pub max_tiles: u32,
    /// Rows of a tile at most.
    pub height: u32,
    /// Workgroups: columns along x, tiles along y.
    pub grid: &'a Grid,
    /// Result `[T S, N]`. Rows of slots that are in no tile keep what they held.
    pub y: &'a Buffer,
}

pub(super) fn check_grouped(
    kernel: &'static str,
    args: &GroupedArgs<'_>,
    shape: ExpertShape,
    x: XRows,
) -> Result<(), KernelError> {
    shape.check(kernel, x, args.parts, &args.epilogue, args.y)?;
    if x == XRows::Weighted {
        let must_be = "a dispatch of its own";
        return Err(KernelError::BadParam { kernel, field: "weighted sums", got: 1, must_be });
    }
    let groups = rows::product([4, 4 * u64::from(args.max_tiles) + shape.num_slots()]);
    rows::check_sizes(kernel, [("groups", Some(args.groups), groups)])
}

/// What a grouped product reads at most: the weights of all experts.
pub(super) fn grouped_cost(launch: &Launch, sizes: &[u64], _: u32) -> Cost {
    cost_of(launch, sizes, |_, experts| experts)
}

/// What a routed product reads at most: the weights of an expert for each slot.
pub(super) fn routed_cost(launch: &Launch, sizes: &[u64], _: u32) -> Cost {
    cost_of(launch, sizes, u64::min)
}

/// The cost, given the experts that are read of slots and experts.
fn cost_of(launch: &Launch, sizes: &[u64], read: fn(u64, u64) -> u64) -> Cost {
    let Some(recorded) = Recorded::of(launch) else { return Cost::default() };
    let p = recorded.params;
    let slots = u64::from(p.num_m) * u64::from(p.num_slots);
    let row = recorded.format.row_bytes(p.num_k) + recorded.format.scale_row_bytes(p.num_k);
    let weights = read(slots, p.num_experts.into()) * u64::from(p.num_n) * row;
    let others = sizes.iter().enumerate().filter(|(i, _)| ![1, 2, 3].contains(i)).map(|(_, bytes)| bytes);
    let flops = 2 * slots * u64::from(p.num_n) * u64::from(p.num_k);
    Cost { bytes: weights + others.sum::<u64>(), flops }
}

/// The definition of a product of slots, given `Σ_k x w` of a row of x with some rows of W.
struct Slots<F> {
    finish: Finish,
    bias: Option<Vec<f32>>,
    params: Params,
    product: F,
}

impl<F: FnMut(usize, Range<usize>) -> Vec<f64>> Slots<F> {
    fn new(call: &TwinCall<'_>, params: Params, product: F) -> Self {
        let mut finish = reference::finish_product(call, &params);
        let bias = finish.bias.take();
        Self { finish, bias, params, product }
    }

    /// `x · W[e]ᵀ + bias[e]`; nothing, if the expert is of another part of W.
    fn sums(&mut self, slot: usize, expert: u32) -> Option<Vec<f64>> {
        let p = &self.params;
        let (n, here) = (p.num_n as usize, expert.wrapping_sub(p.first_expert));
        if here >= p.num_experts {
            return None;
        }
        let first = here as usize * n;
        let mut sums = (self.product)(slot / p.x_slots as usize, first..first + n);
        if let Some(bias) = &self.bias {
            for (sum, bias) in sums.iter_mut().zip(&bias[expert as usize * n..]) {
                *sum += f64::from(*bias);
            }
        }
        Some(sums)
    }
}

/// The definition for few rows; `routes` is the binding of the routes.
pub(super) fn routed_twin(
    call: &mut TwinCall<'_>,
    p: Params,
    routes: usize,
    product: impl FnMut(usize, Range<usize>) -> Vec<f64>,
) {
    let routes: Vec<[u32; 2]> = call.get(routes);
    let weighted = call.selection.get_bool("WEIGHTED");
    let mut slots = Slots::new(call, p, product);
    let mut y: Vec<f32> = call.get(5);
    for (token, chosen) in routes.chunks_exact(p.num_slots as usize).take(p.num_m as usize).enumerate() {
        let mut total = vec![0.0; p.num_n as usize];
        for (j, &[expert, weight]) in chosen.iter().enumerate() {
            let slot = token * p.num_slots as usize + j;
            let Some(sums) = slots.sums(slot, expert) else { continue };
            if !weighted {
                slots.finish.store(&mut y, slot, 0, &sums);
            }
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += f64::from(f32::from_bits(weight)) * sum;
            }
        }
        if weighted {
            slots.finish.store(&mut y, token, 0, &total);
        }
    }
    call.put(5, &y);
}

/// The definition for many rows; `groups` is the binding of the groups.
pub(super) fn grouped_twin(
    call: &mut TwinCall<'_>,
    p: Params,
    groups: usize,
    product: impl FnMut(usize, Range<usize>) -> Vec<f64>,
) {
    let groups: Vec<u32> = call.get(groups);
    let (tiles, order) = groups.split_at(p.slots_at as usize);
    let mut slots = Slots::new(call, p, product);
    let mut y: Vec<f32> = call.get(5);
    for &[expert, first, rows, _] in tiles.as_chunks().0 {
        for &slot in order.iter().skip(first as usize).take(rows as usize) {
            if let Some(sums) = slots.sums(slot as usize, expert) {
                slots.finish.store(&mut y, slot as usize, 0, &sums);
            }
        }
    }
    call.put(5, &y);
}

/// Routes of a test case `[T, S]` that go to experts in an uneven order: none to expert 1, where there are several, and one slot
/// without an expert, where there are many.
pub(super) fn seeded_routes(shape: ExpertShape) -> Vec<[u32; 2]> {
    let total = shape.num_slots() as u32;
    let route = |slot: u32| {
        let expert = match hash(slot + 17) % shape.experts {
            1 => 0,
            expert => expert,
        };
        let weight = 0.25 + (hash(slot + 99) % 64) as f32 / 64.0;
        [if total > 3 && slot + 1 == total { u32::MAX } else { expert }, weight.to_bits()]
    };
    (0..total).map(route).collect()
}

/// The groups of routes in tiles of so many rows, and the number of tiles. One tile more than there are is empty.
pub(super) fn seeded_groups(routes: &[[u32; 2]], experts: u32, height: u32) -> (Vec<u32>, u32) {
    let (mut tiles, mut order) = (Vec::new(), Vec::new());
    for expert in 0..experts {
        let of: Vec<u32> = (0..).zip(routes).filter(|(_, r)| r[0] == expert).map(|(slot, _)| slot).collect();
        for tile in of.chunks(height as usize) {
            tiles.extend([expert, order.len() as u32, tile.len() as u32, 0]);
            order.extend(tile);
        }
    }
    tiles.extend([0; 4]);
    let count = tiles.len() as u32 / 4;
    (tiles.into_iter().chain(order).collect(), count)
}
