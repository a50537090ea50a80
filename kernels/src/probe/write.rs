//! `dst[i] = i` in each of the four elements.

use girih_shaders::Selection;

use super::set::{CASES, Params};
use super::{exact, portable};
use crate::buffer::Buffer;
use crate::case::{Element, TestCase};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read_write};
use crate::twin::TwinCall;

const WG: u32 = 64;
const VEC: u32 = 8;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_write",
    bindings: &[read_write("dst")],
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
    portable("probe/write.wgsl", WG, Selection::new().set("VEC", VEC))
}

/// Appends writing of the whole vec4s of `dst`, `passes` times.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, dst: &Buffer, passes: u32) -> Result<(), KernelError> {
    let (params, grid) = Params::of((dst.size() / 16) as u32, WG * VEC, passes, rec.caps().workgroups);
    rec.dispatch(&SPEC, choice(), &params, &[dst], grid)
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    call.put(0, &(0..4 * p.len).map(|i| i / 4).collect::<Vec<u32>>());
}

fn cases() -> Vec<TestCase> {
    CASES
        .into_iter()
        .map(|(name, regime, len, passes, workgroups)| {
            let (params, grid) = Params::of(len, WG * VEC, passes, workgroups);
            let poison = vec![0xdead_beef_u32; 4 * len as usize];
            exact(name, regime).in_out(&poison, Element::Bits).launch(choice(), &params, grid)
        })
        .collect()
}
