//! The k largest logits of each row in order, in two stages of one shader.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{better, hard_logits, order_key};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Element, Regime, TestCase, Tolerance};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `top_k.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows S.
    pub num_rows: u32,
    /// Elements of a row.
    pub row_len: u32,
    /// Elements of a part.
    pub part_len: u32,
    /// Parts of a row.
    pub num_parts: u32,
    /// Results of a part.
    pub top_k: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Logits `[S, V]`; in the second stage the values of the parts `[S, parts · k]`. f32.
    pub logits: &'a Buffer,
    /// Values `[S, num_parts, k]`, descending, f32.
    pub values: &'a Buffer,
    /// Their indices, u32.
    pub ids: &'a Buffer,
    /// In the second stage the indices of the parts.
    pub part_ids: Option<&'a Buffer>,
}

const FILE: &str = "sample/top_k.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "top_k",
    bindings: &[read("logits"), read_write("values"), read_write("ids"), read("part_ids")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Logits of a part in the first stage.
pub fn part_len(caps: &Caps) -> u32 {
    // A round costs much more than an element on a CPU: few parts.
    if caps.cpu_variants() { 16384 } else { 2048 }
}

/// Appends one stage: the k largest of each part of each row, descending, ties to the lowest index. Where fewer
/// than k are not NaN, the rest has index 0xffffffff and the most negative value.
///
/// # Errors
/// No elements, k of zero; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    row_len: u32,
    part_len: u32,
    top_k: u32,
) -> Result<(), KernelError> {
    for (field, value) in [("row_len", row_len), ("part_len", part_len), ("top_k", top_k)] {
        rows::positive(SPEC.name, field, value)?;
    }
    let (_, subgroup) = rows::pick(rec.caps(), SPEC.name, false, true);
    let wg = if rec.caps().cpu_variants() { 16 } else { 128 };
    let num_parts = row_len.div_ceil(part_len);
    let params = Params { num_rows, row_len, part_len, num_parts, top_k };
    let buffers = [args.logits, args.values, args.ids, args.part_ids.unwrap_or(args.logits)];
    let choice = choice(wg, subgroup, args.part_ids.is_some());
    rec.dispatch(&SPEC, choice, &params, &buffers, [num_parts, num_rows, 1])
}

fn choice(wg: u32, subgroup: bool, merge: bool) -> Choice {
    let selection = Selection::new();
    let selection = if merge { selection.part("top_k_parts", "sample/top_k_merge.wgsl") } else { selection };
    super::choice(FILE, wg, subgroup, selection)
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 128] {
        for (subgroup, merge) in [(false, false), (false, true), (true, false), (true, true)] {
            all.push(choice(wg, subgroup, merge));
        }
    }
    all
}

/// The definition: a stable sort.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let merge = call.selection.get_part("top_k_parts").is_some();
    let logits: Vec<f32> = call.get(0);
    let (mut values, mut ids): (Vec<f32>, Vec<u32>) = (call.get(1), call.get(2));
    let part_ids: Vec<u32> = call.get(3);
    let (row_len, k) = (p.row_len as usize, p.top_k as usize);
    for row in 0..p.num_rows as usize {
        for part in 0..p.num_parts as usize {
            let range = part * p.part_len as usize..row_len.min((part + 1) * p.part_len as usize);
            let mut found: Vec<(u32, u32, f32)> = range
                .map(|i| {
                    let v = logits[row * row_len + i];
                    let id = if merge { part_ids[row * row_len + i] } else { i as u32 };
                    (order_key(v), id, if v == 0.0 { 0.0 } else { v })
                })
                .filter(|e| e.0 > 0 && e.1 != super::NONE)
                .collect();
            found.sort_by(|a, b| {
                if better((a.0, a.1), (b.0, b.1)) {
                    std::cmp::Ordering::Less
                } else {
                    std::cmp::Ordering::Greater
                }
            });
            let at = (row * p.num_parts as usize + part) * k;
            for j in 0..k {
                let (_, id, v) = found.get(j).copied().unwrap_or((0, super::NONE, f32::MIN));
                values[at + j] = v;
                ids[at + j] = id;
            }
        }
    }
    call.put(1, &values);
    call.put(2, &ids);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime),
                num_rows: u32,
                row_len: u32,
                part_len: u32,
                top_k: u32,
                merge: bool| {
        let num_parts = row_len.div_ceil(part_len);
        let out = (num_rows * num_parts * top_k) as usize;
        let ids: Vec<u32> = (0..num_rows * row_len)
            .map(|i| if i % 11 == 3 { super::NONE } else { (i % row_len).wrapping_mul(97) % 4096 })
            .collect();
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&hard_logits(num_rows, row_len))
            .output(out)
            .in_out(&vec![0xdead_beefu32; out], Element::Bits)
            .input(&ids);
        for wg in [16, 128] {
            for subgroup in [false, true] {
                let params = Params { num_rows, row_len, part_len, num_parts, top_k };
                case = case.launch(choice(wg, subgroup, merge), &params, [num_parts, num_rows, 1]);
            }
        }
        case
    };
    vec![
        case(("parts", PartialTile), 3, 1001, 300, 20, false),
        case(("ties_and_nan", OneTile), 4, 64, 64, 8, false),
        case(("more_than_there_are", PartialTile), 2, 9, 4, 6, false),
        case(("gpt2", Model), 1, 50257, 2048, 40, false),
        case(("merge", ManyTiles), 4, 256, 256, 64, true),
    ]
}
