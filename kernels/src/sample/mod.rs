//! From logits to token ids.

pub mod argmax;
pub mod argmax_merge;
pub mod greedy_advance;
pub mod top_k;

use girih_shaders::Selection;

use crate::caps::Caps;
use crate::choice::{Choice, Data, Requires};
use crate::rows;

/// Index where nothing was found: every logit is NaN.
pub const NONE: u32 = u32::MAX;

/// Order of f32 as order of u32: NaN is 0, below everything; -0 equals 0.
pub fn order_key(x: f32) -> u32 {
    let bits = if x == 0.0 { 0 } else { x.to_bits() };
    if x.is_nan() {
        0
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 0x8000_0000
    }
}

/// Whether `a` goes before `b`: the larger key, the lower index among equals.
fn better(a: (u32, u32), b: (u32, u32)) -> bool {
    a.0 > b.0 || (a.0 == b.0 && a.1 < b.1)
}

/// A choice of a file that imports `common/reduce_key.wgsl` and declares `WG`.
fn choice(file: &'static str, wg: u32, subgroup: bool, selection: Selection) -> Choice {
    let selection = selection.set("WG", wg);
    Choice {
        file,
        variant: rows::variant(false, subgroup),
        selection: if subgroup {
            selection.part("reduce_key", "common/reduce_key_subgroup.wgsl")
        } else {
            selection
        },
        invocations: wg,
        // A key and an index for each invocation, or for each subgroup of at least 4.
        workgroup_bytes: if subgroup { 2 * wg } else { 8 * wg },
        requires: Requires::subgroups_if(subgroup),
        data: Data::Plain,
    }
}

/// Choice of a second stage, whose rows are short.
fn merging(caps: &Caps, kernel: &str, file: &'static str, num_parts: u32) -> Choice {
    let (_, subgroup) = rows::pick(caps, kernel, false, true);
    let wg = if caps.cpu_variants() || num_parts <= 16 { 16 } else { 64 };
    choice(file, wg, subgroup, Selection::new())
}

/// Both variants in the sizes that [`merging`] picks.
fn merging_choices(file: &'static str) -> Vec<Choice> {
    let wgs = [16, 64];
    wgs.into_iter().flat_map(|wg| [false, true].map(|s| choice(file, wg, s, Selection::new()))).collect()
}

/// Seeded logits with ties, NaN, both zeros and a row of NaN.
fn hard_logits(num_rows: u32, row_len: u32) -> Vec<f32> {
    let mut logits: Vec<f32> = crate::case::seeded((num_rows * row_len) as usize, 7)
        .iter()
        .map(|v| (v * 8.0).round() / 8.0)
        .collect();
    for (i, v) in logits.iter_mut().enumerate() {
        match i % 13 {
            4 => *v = f32::NAN,
            5 => *v = -0.0,
            _ if i / row_len as usize == 2 => *v = f32::NAN,
            _ if i / row_len as usize == 3 => *v = -v.abs() - 1.0,
            _ => {}
        }
    }
    logits
}
