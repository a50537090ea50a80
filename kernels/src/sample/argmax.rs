//! The index of the largest logit of each row, in parts.

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

/// Same layout as `Params` in `argmax.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows S.
    pub num_rows: u32,
    /// Logits V of a row.
    pub vocab_size: u32,
    /// Loads (of one or four logits) of a part.
    pub part_len: u32,
    /// Parts of a row.
    pub num_parts: u32,
}

/// How a row is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Parts of a row.
    pub num_parts: u32,
    vec4: bool,
    subgroup: bool,
    part_len: u32,
    wg: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Logits `[S, V]`, f32.
    pub logits: &'a Buffer,
    /// Output, u32: key and index `[S, num_parts, 2]`; with `last` the index `[S]`.
    pub best: &'a Buffer,
}

const FILE: &str = "sample/argmax.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "argmax",
    bindings: &[read("logits"), read_write("best")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// How rows of `vocab_size` logits are split on this device.
pub fn parts(caps: &Caps, vocab_size: u32) -> Parts {
    let (vec4, subgroup) = rows::pick(caps, SPEC.name, vocab_size.is_multiple_of(4), true);
    let row_len = vocab_size / if vec4 { 4 } else { 1 };
    let (wg, part_len) = if caps.cpu_variants() {
        (16, 4096)
    } else {
        let wg = 256.min(caps.invocations);
        (wg, 4 * wg)
    };
    Parts { num_parts: row_len.div_ceil(part_len).max(1), vec4, subgroup, part_len, wg }
}

/// Appends the first stage, which is also the last one if `last` (possible with one part only).
///
/// # Errors
/// No logits, `last` with several parts; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_rows: u32,
    vocab_size: u32,
    parts: Parts,
    last: bool,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "vocab_size", vocab_size)?;
    if last && parts.num_parts != 1 {
        return Err(KernelError::BadParam {
            kernel: SPEC.name,
            field: "num_parts",
            got: parts.num_parts.into(),
            must_be: "1 in the last stage",
        });
    }
    let params = Params { num_rows, vocab_size, part_len: parts.part_len, num_parts: parts.num_parts };
    let choice = choice(parts.wg, parts.vec4, parts.subgroup, last);
    rec.dispatch(&SPEC, choice, &params, &[args.logits, args.best], [parts.num_parts, num_rows, 1])
}

fn choice(wg: u32, vec4: bool, subgroup: bool, last: bool) -> Choice {
    let selection = rows::lanes(Selection::new().set("FINAL", last), vec4);
    let selection = if vec4 { selection.part("scan", "sample/scan4.wgsl") } else { selection };
    Choice { variant: rows::variant(vec4, subgroup), ..super::choice(FILE, wg, subgroup, selection) }
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 128, 256] {
        for (vec4, subgroup) in rows::widths() {
            all.extend([choice(wg, vec4, subgroup, false), choice(wg, vec4, subgroup, true)]);
        }
    }
    all
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let last = call.selection.get_bool("FINAL");
    let logits: Vec<f32> = call.get(0);
    let mut best: Vec<u32> = call.get(1);
    // A part of the vec4 variant has four logits for each load.
    let part_len = p.part_len as usize * if call.selection.get_part("lanes").is_some() { 4 } else { 1 };
    let v = p.vocab_size as usize;
    for (row, logits) in logits.chunks_exact(v).enumerate().take(p.num_rows as usize) {
        for part in 0..p.num_parts as usize {
            let mut found = (0, super::NONE);
            let range = part * part_len..v.min((part + 1) * part_len);
            for (i, &logit) in (0..).zip(logits).take(range.end).skip(range.start) {
                let own = (order_key(logit), i);
                if own.0 > 0 && better(own, found) {
                    found = own;
                }
            }
            if last {
                best[row] = found.1;
            } else {
                let at = 2 * (row * p.num_parts as usize + part);
                best[at..at + 2].copy_from_slice(&[found.0, found.1]);
            }
        }
    }
    call.put(1, &best);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), num_rows: u32, vocab_size: u32, parts: u32, wgs: &[u32]| {
        let out = vec![0xdead_beefu32; (num_rows * parts * if parts == 1 { 1 } else { 2 }) as usize];
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&hard_logits(num_rows, vocab_size))
            .in_out(&out, Element::Bits);
        for &wg in wgs {
            for (vec4, subgroup) in rows::widths() {
                if vec4 && !vocab_size.is_multiple_of(4) {
                    continue;
                }
                let row_len = vocab_size / if vec4 { 4 } else { 1 };
                let params =
                    Params { num_rows, vocab_size, part_len: row_len.div_ceil(parts), num_parts: parts };
                case = case.launch(choice(wg, vec4, subgroup, parts == 1), &params, [parts, num_rows, 1]);
            }
        }
        case
    };
    vec![
        case(("parts", ManyTiles), 5, 8192, 4, &[16, 128, 256]), // the self-test: work for all lanes of all subgroups
        case(("llama_8b", Model), 1, 128_256, 16, &[16]),
        case(("partial_parts_of_quads", PartialTile), 4, 1004, 5, &[16]),
        case(("nan_and_ties", OneTile), 4, 64, 1, &[16, 128]),
        case(("one_logit", OneTile), 5, 1, 1, &[16]),
        case(("odd_parts", PartialTile), 4, 1001, 5, &[16]),
    ]
}
