//! Multiply-adds in registers.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `fma.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Multiply-adds of each chain.
    pub rounds: u32,
    /// Unused.
    pub pad: [u32; 3],
}

/// Invocations of a workgroup.
pub const WG: u32 = 64;
const CHAINS: u32 = 16;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_fma",
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
    Choice {
        file: "probe/fma.wgsl",
        variant: "portable",
        selection: Selection::new().set("WG", WG).set("CHAINS", CHAINS),
        invocations: WG,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}

/// Appends `groups` workgroups of `rounds` rounds and returns their number of operations.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    x: &Buffer,
    y: &Buffer,
    groups: u32,
    rounds: u32,
) -> Result<f64, KernelError> {
    rec.dispatch(&SPEC, choice(), &Params { rounds, pad: [0; 3] }, &[x, y], [groups, 1, 1])?;
    Ok(2.0 * f64::from(CHAINS) * f64::from(rounds) * f64::from(groups) * f64::from(WG))
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let x: Vec<f32> = call.get(0);
    let mut sum = 0.0;
    for chain in 0..CHAINS {
        let (start, factor) = (f64::from(x[0]), f64::from(x[1]));
        let mut acc = start + f64::from(chain);
        for _ in 0..p.rounds {
            acc = acc * factor + start;
        }
        sum += acc;
    }
    let len = call.buffers[1].len() / 4;
    call.put(1, &vec![sum as f32; len]);
}

fn cases() -> Vec<TestCase> {
    [
        ("one_round", Regime::OneTile, 1, 1),
        ("rounds_without_a_multiple", Regime::PartialTile, 2, 7),
        ("many_rounds", Regime::ManyTiles, 3, 50),
        ("as_measured", Regime::Model, 16, 64),
    ]
    .into_iter()
    .map(|(name, regime, groups, rounds)| {
        TestCase::new(name, regime, Tolerance { abs: 1e-4, rel: 1e-5 })
            .input(&[0.5f32, 0.75])
            .output((groups * WG) as usize)
            .launch(choice(), &Params { rounds, pad: [0; 3] }, [groups, 1, 1])
    })
    .collect()
}
