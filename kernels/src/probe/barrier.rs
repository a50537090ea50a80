//! Values that wander around a workgroup: `y[g, i] = x[(i + rounds) % WG]`, one barrier a round.

use girih_shaders::Selection;

use super::rounds::{CASES, Params};
use super::{exact, portable};
use crate::buffer::Buffer;
use crate::case::{Element, TestCase, hash};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Invocations of a workgroup.
pub const WG: u32 = 64;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_barrier",
    bindings: &[read("x"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices: || vec![choice()],
    cases,
    benches: Vec::new,
    cases_of: None,
    tuning: None,
    cost: None,
};

fn choice() -> Choice {
    Choice { workgroup_bytes: 8 * WG, ..portable("probe/barrier.wgsl", WG, Selection::new()) }
}

/// Appends `groups` workgroups of `rounds` rounds.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, [x, y]: [&Buffer; 2], groups: u32, rounds: u32) -> Result<(), KernelError> {
    rec.dispatch(&SPEC, choice(), &Params::of(rounds), &[x, y], [groups, 1, 1])
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let x: Vec<u32> = call.get(0);
    let len = call.buffers[1].len() / 4;
    let wg = WG as usize;
    call.put(1, &(0..len).map(|i| x[(i % wg + p.rounds as usize) % wg]).collect::<Vec<u32>>());
}

fn cases() -> Vec<TestCase> {
    CASES
        .into_iter()
        .map(|(name, regime, groups, rounds)| {
            let poison = vec![0xdead_beef_u32; (groups * WG) as usize];
            exact(name, regime)
                .input(&(0..WG).map(hash).collect::<Vec<u32>>())
                .in_out(&poison, Element::Bits)
                .launch(choice(), &Params::of(rounds), [groups, 1, 1])
        })
        .collect()
}
