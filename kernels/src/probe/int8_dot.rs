//! Dot products of four signed bytes in registers.

use girih_shaders::Selection;

use super::rounds::{CASES, Params};
use super::{exact, portable};
use crate::buffer::Buffer;
use crate::case::{Element, TestCase};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Invocations of a workgroup.
pub const WG: u32 = 64;
const CHAINS: u32 = 16;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_int8_dot",
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
    portable("probe/int8_dot.wgsl", WG, Selection::new().set("CHAINS", CHAINS))
}

/// Appends `groups` workgroups of `rounds` rounds and returns their number of operations, eight for each dot product.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    [x, y]: [&Buffer; 2],
    groups: u32,
    rounds: u32,
) -> Result<f64, KernelError> {
    rec.dispatch(&SPEC, choice(), &Params::of(rounds), &[x, y], [groups, 1, 1])?;
    Ok(8.0 * f64::from(CHAINS) * f64::from(rounds) * f64::from(groups) * f64::from(WG))
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let x = call.get::<u32>(0)[0].to_le_bytes();
    let len = call.buffers[1].len() / 4;
    let y: Vec<i32> = (0..len as i32)
        .map(|i| {
            let chain = |c: i32| {
                (0..p.rounds).fold(i + c, |acc, _| {
                    let products = acc
                        .to_le_bytes()
                        .into_iter()
                        .zip(x)
                        .map(|(a, b)| i32::from(a.cast_signed()) * i32::from(b.cast_signed()));
                    acc.wrapping_add(products.sum())
                })
            };
            (0..CHAINS as i32).map(chain).fold(0, i32::wrapping_add)
        })
        .collect();
    call.put(1, &y);
}

fn cases() -> Vec<TestCase> {
    CASES
        .into_iter()
        .map(|(name, regime, groups, rounds)| {
            let poison = vec![0xdead_beef_u32; (groups * WG) as usize];
            exact(name, regime).input(&[0x7f80_03fd_u32]).in_out(&poison, Element::Bits).launch(
                choice(),
                &Params::of(rounds),
                [groups, 1, 1],
            )
        })
        .collect()
}
