//! `dst = src`.

use girih_shaders::Selection;

use super::set::{CASES, Params};
use super::{exact, portable};
use crate::buffer::Buffer;
use crate::case::{TestCase, seeded};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

const WG: u32 = 64;
const VEC: u32 = 8;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_copy",
    bindings: &[read("src"), read_write("dst")],
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
    portable("probe/copy.wgsl", WG, Selection::new().set("VEC", VEC))
}

/// Appends copies of the whole vec4s of `src`, `passes` times.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, src: &Buffer, dst: &Buffer, passes: u32) -> Result<(), KernelError> {
    let len = (src.size().min(dst.size()) / 16) as u32;
    let (params, grid) = Params::of(len, WG * VEC, passes, rec.caps().workgroups);
    rec.dispatch(&SPEC, choice(), &params, &[src, dst], grid)
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let src: Vec<f32> = call.get(0);
    call.put(1, &src[..4 * p.len as usize]);
}

fn cases() -> Vec<TestCase> {
    CASES
        .into_iter()
        .map(|(name, regime, len, passes, workgroups)| {
            let (params, grid) = Params::of(len, WG * VEC, passes, workgroups);
            exact(name, regime).input(&seeded(4 * len as usize, 1)).output(4 * len as usize).launch(
                choice(),
                &params,
                grid,
            )
        })
        .collect()
}
