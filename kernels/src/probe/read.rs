//! The bits of a buffer, folded by exclusive or.

use girih_shaders::Selection;

use super::set::{CASES, Params};
use super::{exact, portable};
use crate::buffer::Buffer;
use crate::case::{Element, TestCase, hash};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Invocations of a workgroup and rounds of each, on GPUs and on CPUs.
const SIZES: [[u32; 2]; 2] = [[64, 4], [8, 32]];
const VEC: u32 = 8;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_read",
    bindings: &[read("src"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

fn choice([wg, rounds]: [u32; 2]) -> Choice {
    portable("probe/read.wgsl", wg, Selection::new().set("VEC", VEC).set("ROUNDS", rounds))
}

fn choices() -> Vec<Choice> {
    SIZES.map(choice).into()
}

/// Bytes of `y` for `passes` over `bytes`.
pub fn result_bytes(bytes: u64, passes: u32) -> u64 {
    let each = |[wg, rounds]: [u32; 2]| {
        let groups = (bytes / 16).div_ceil(u64::from(wg * VEC * rounds)).max(1);
        4 * groups * u64::from(passes) * u64::from(wg)
    };
    SIZES.map(each).into_iter().max().unwrap_or(0)
}

/// Appends reading of the whole vec4s of `src`, `passes` times; `y` has [`result_bytes`].
///
/// # Errors
/// A `y` that is too short, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, src: &Buffer, y: &Buffer, passes: u32) -> Result<(), KernelError> {
    let (got, want) = (y.size(), result_bytes(src.size(), passes));
    if got < want {
        return Err(KernelError::BadBuffer { kernel: SPEC.name, binding: "y", got, want });
    }
    let [wg, rounds] = SIZES[usize::from(rec.caps().cpu_variants())];
    let len = (src.size() / 16) as u32;
    let (params, grid) = Params::of(len, wg * VEC * rounds, passes, rec.caps().workgroups);
    rec.dispatch(&SPEC, choice([wg, rounds]), &params, &[src, y], grid)
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let get = |name: &str| call.selection.get_u32(name).unwrap_or(0) as usize;
    let (wg, each) = (get("WG"), get("VEC") * get("ROUNDS"));
    let src: Vec<u32> = call.get(0);
    let mut y = vec![0u32; p.groups as usize * wg];
    for (i, y) in y.iter_mut().enumerate() {
        let (group, id) = (i / wg % p.chunks as usize, i % wg);
        for at in (0..each).map(|v| (group * each + v) * wg + id).take_while(|&at| at < p.len as usize) {
            *y ^= src[4 * at..4 * at + 4].iter().fold(0, |bits, word| bits ^ word);
        }
    }
    call.put(1, &y);
}

fn cases() -> Vec<TestCase> {
    let of = |[wg, rounds]: [u32; 2]| {
        CASES.into_iter().map(move |(name, regime, len, passes, workgroups)| {
            let (params, grid) = Params::of(len, wg * VEC * rounds, passes, workgroups);
            let src: Vec<u32> = (0..4 * len).map(hash).collect();
            // What is not written keeps these bits.
            let poison = vec![0xdead_beef_u32; (params.groups * wg) as usize];
            exact(&format!("{name}_{wg}"), regime).input(&src).in_out(&poison, Element::Bits).launch(
                choice([wg, rounds]),
                &params,
                grid,
            )
        })
    };
    SIZES.into_iter().flat_map(of).collect()
}
