//! The second stage of argmax together with the state of the next decode step.

use bytemuck::{Pod, Zeroable};

use super::argmax_merge::{best_of, seeded_parts};
use crate::buffer::Buffer;
use crate::case::{Element, Regime, TestCase, Tolerance};
use crate::choice::{Choice, Launch};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `greedy_advance.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Sequences S.
    pub num_seqs: u32,
    /// Parts of a row.
    pub num_parts: u32,
    /// Tokens that a row of `out` can hold.
    pub capacity: u32,
}

/// Buffers, all u32.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Key and index of each part `[S, num_parts, 2]`.
    pub parts: &'a Buffer,
    /// Token of each sequence `[S]`.
    pub token_ids: &'a Buffer,
    /// Position of each sequence's token `[S]`.
    pub positions: &'a Buffer,
    /// `Seq` of each sequence `[S, 4]`.
    pub seqs: &'a Buffer,
    /// Count and tokens so far `[S, 1 + capacity]`.
    pub out: &'a Buffer,
}

const FILE: &str = "sample/greedy_advance.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "greedy_advance",
    bindings: &[
        read("parts"),
        read_write("token_ids"),
        read_write("positions"),
        read_write("seqs"),
        read_write("out"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: Some(cost) };

/// The parts of each sequence, and its state: eight words read and written, of which two are new.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    Cost { bytes: u64::from(p.num_seqs) * (8 * u64::from(p.num_parts) + 4 * 8), flops: 0 }
}

/// Appends the choice among the parts of each sequence, and the step forward.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    num_seqs: u32,
    num_parts: u32,
    capacity: u32,
) -> Result<(), KernelError> {
    let choice = super::merging(rec.caps(), SPEC.name, FILE, num_parts);
    let params = Params { num_seqs, num_parts, capacity };
    let buffers = [args.parts, args.token_ids, args.positions, args.seqs, args.out];
    rec.dispatch(&SPEC, choice, &params, &buffers, [num_seqs, 1, 1])
}

fn choices() -> Vec<Choice> {
    super::merging_choices(FILE)
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let parts: Vec<u32> = call.get(0);
    let [mut token_ids, mut positions, mut seqs, mut out]: [Vec<u32>; 4] = [1, 2, 3, 4].map(|i| call.get(i));
    for s in 0..p.num_seqs as usize {
        let row = 2 * p.num_parts as usize;
        let token = best_of(&parts[s * row..(s + 1) * row]);
        let out = &mut out[s * (1 + p.capacity as usize)..];
        if out[0] < p.capacity {
            out[1 + out[0] as usize] = token;
            out[0] += 1;
        }
        token_ids[s] = token;
        positions[s] += 1;
        seqs[4 * s + 2] += 1;
    }
    for (i, data) in [token_ids, positions, seqs, out].iter().enumerate() {
        call.put(i + 1, data);
    }
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), num_seqs: u32, num_parts: u32, capacity: u32| {
        let n = num_seqs as usize;
        let mut out = vec![7u32; n * (1 + capacity as usize)];
        for (s, row) in out.chunks_exact_mut(1 + capacity as usize).enumerate() {
            row[0] = s as u32 % (capacity + 1); // also a full one
        }
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&seeded_parts(num_seqs, num_parts))
            .in_out(&vec![9u32; n], Element::Bits)
            .in_out(&(100..100 + num_seqs).collect::<Vec<u32>>(), Element::Bits)
            .in_out(&(0..4 * num_seqs).collect::<Vec<u32>>(), Element::Bits)
            .in_out(&out, Element::Bits);
        for choice in choices() {
            let params = Params { num_seqs, num_parts, capacity };
            case = case.launch(choice, &params, [num_seqs, 1, 1]);
        }
        case
    };
    vec![
        case(("full_rows", ManyTiles), 7, 131, 3),
        case(("one_sequence", PartialTile), 1, 3, 4),
        case(("llama_8b", Model), 1, 64, 8),
        case(("no_capacity", OneTile), 2, 1, 0),
    ]
}
