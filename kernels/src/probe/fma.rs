//! Multiply-adds in registers.

use girih_shaders::Selection;

use super::portable;
use super::rounds::{CASES, Params};
use crate::buffer::Buffer;
use crate::case::{TestCase, Tolerance};
use crate::choice::{Choice, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Invocations of a workgroup.
pub const WG: u32 = 64;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_fma",
    bindings: &[read("x"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel {
    spec: &SPEC,
    choices: || [false, true].map(choice).into(),
    cases,
    benches: Vec::new,
    cases_of: None,
    tuning: None,
    cost: None,
};

/// Chains of vec4s: 16 registers, which f16 fills with twice as many numbers.
fn chains(f16: bool) -> u32 {
    if f16 { 8 } else { 4 }
}

fn choice(f16: bool) -> Choice {
    let selection = Selection::new().set("CHAINS", chains(f16)).set("T", if f16 { "f16" } else { "f32" });
    if !f16 {
        return portable("probe/fma.wgsl", WG, selection);
    }
    let choice = portable("probe/fma.wgsl", WG, selection.part("types", "probe/f16.wgsl"));
    Choice { variant: "f16", requires: Requires { f16: true, ..Requires::NOTHING }, ..choice }
}

/// Appends `groups` workgroups of `rounds` rounds in f32 or f16 and returns their number of operations.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    [x, y]: [&Buffer; 2],
    f16: bool,
    groups: u32,
    rounds: u32,
) -> Result<f64, KernelError> {
    rec.dispatch(&SPEC, choice(f16), &Params::of(rounds), &[x, y], [groups, 1, 1])?;
    Ok(8.0 * f64::from(chains(f16)) * f64::from(rounds) * f64::from(groups) * f64::from(WG))
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let x: Vec<f32> = call.get(0);
    let (start, factor) = (f64::from(x[0]), f64::from(x[1]));
    let mut sum = 0.0;
    for chain in 0..call.selection.get_u32("CHAINS").unwrap_or(0) {
        let mut acc = start + f64::from(chain);
        for _ in 0..p.rounds {
            acc = acc * factor + start;
        }
        sum += 4.0 * acc;
    }
    let len = call.buffers[1].len() / 4;
    call.put(1, &vec![sum as f32; len]);
}

fn cases() -> Vec<TestCase> {
    let of = |f16| {
        // The sum of up to 32 numbers that are about 2, each within a few steps of f16.
        let tolerance =
            if f16 { Tolerance { abs: 0.1, rel: 0.0 } } else { Tolerance { abs: 1e-4, rel: 1e-5 } };
        CASES.into_iter().map(move |(name, regime, groups, rounds)| {
            let choice = choice(f16);
            TestCase::new(format!("{name}_{}", choice.variant), regime, tolerance)
                .input(&[0.5f32, 0.75])
                .output((groups * WG) as usize)
                .launch(choice, &Params::of(rounds), [groups, 1, 1])
        })
    };
    of(false).chain(of(true)).collect()
}
