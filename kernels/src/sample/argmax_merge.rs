//! The second stage of argmax.

use bytemuck::{Pod, Zeroable};

use super::better;
use crate::buffer::Buffer;
use crate::case::{Element, Regime, TestCase, Tolerance, hash};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `argmax_merge.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows S.
    pub num_rows: u32,
    /// Parts of a row.
    pub num_parts: u32,
}

/// Buffers, all u32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Key and index of each part `[S, num_parts, 2]`.
    pub parts: &'a Buffer,
    /// Index of the best `[S]`.
    pub best: &'a Buffer,
}

const FILE: &str = "sample/argmax_merge.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "argmax_merge",
    bindings: &[read("parts"), read_write("best")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends the choice among the parts of each row.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, num_rows: u32, num_parts: u32) -> Result<(), KernelError> {
    let choice = super::merging(rec.caps(), SPEC.name, FILE, num_parts);
    rec.dispatch(&SPEC, choice, &Params { num_rows, num_parts }, &[args.parts, args.best], [num_rows, 1, 1])
}

fn choices() -> Vec<Choice> {
    super::merging_choices(FILE)
}

/// The best of `(key, index)` pairs.
pub(super) fn best_of(parts: &[u32]) -> u32 {
    let mut found = (0, super::NONE);
    for part in parts.chunks_exact(2) {
        if better((part[0], part[1]), found) {
            found = (part[0], part[1]);
        }
    }
    found.1
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let parts: Vec<u32> = call.get(0);
    let mut best: Vec<u32> = call.get(1);
    for (best, parts) in best.iter_mut().zip(parts.chunks_exact(2 * p.num_parts as usize)) {
        *best = best_of(parts);
    }
    call.put(1, &best);
}

/// Pairs with ties between parts and parts without a result.
pub(super) fn seeded_parts(num_rows: u32, num_parts: u32) -> Vec<u32> {
    let pair = |i: u32| match i % 5 {
        0 => [0, super::NONE],
        _ if i / num_parts == 1 => [0, super::NONE],
        _ => [0x8000_0000 | (hash(i) % 6), i % num_parts * 100 + hash(i) % 100],
    };
    (0..num_rows * num_parts).flat_map(pair).collect()
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), num_rows: u32, num_parts: u32| {
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&seeded_parts(num_rows, num_parts))
            .in_out(&vec![0xdead_beefu32; num_rows as usize], Element::Bits);
        for choice in choices() {
            case = case.launch(choice, &Params { num_rows, num_parts }, [num_rows, 1, 1]);
        }
        case
    };
    vec![
        case(("many", ManyTiles), 3, 131),
        case(("few", PartialTile), 3, 3),
        case(("llama_8b", Model), 1, 64),
        case(("one", OneTile), 2, 1),
    ]
}
