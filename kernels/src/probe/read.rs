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

/// Invocations of a workgroup on GPUs, and on CPUs.
const WG: [u32; 2] = [64, 8];
const VEC: u32 = 32;

const SPEC: KernelSpec = KernelSpec {
    name: "probe_read",
    bindings: &[read("src"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

fn choice(streams: bool) -> Choice {
    let selection = Selection::new().set("VEC", VEC).set("STREAMS", streams);
    let choice = portable("probe/read.wgsl", WG[usize::from(streams)], selection);
    Choice { variant: if streams { "streams" } else { "portable" }, ..choice }
}

fn choices() -> Vec<Choice> {
    [false, true].map(choice).into()
}

/// Bytes of `y` for `passes` over `bytes`.
pub fn result_bytes(bytes: u64, passes: u32) -> u64 {
    (bytes / 16 / u64::from(VEC) + u64::from(WG[0])) * u64::from(passes) * 4
}

/// Appends reading of the whole vec4s of `src`, `passes` times, on CPUs each invocation a range of its own; `y` has
/// [`result_bytes`].
///
/// # Errors
/// A `y` that is too short, and as [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, src: &Buffer, y: &Buffer, passes: u32) -> Result<(), KernelError> {
    let (got, want) = (y.size(), result_bytes(src.size(), passes));
    if got < want {
        return Err(KernelError::BadBuffer { kernel: SPEC.name, binding: "y", got, want });
    }
    let choice = choice(rec.caps().cpu_variants());
    let len = (src.size() / 16) as u32;
    let (params, grid) = Params::of(len, choice.invocations * VEC, passes, rec.caps().workgroups);
    rec.dispatch(&SPEC, choice, &params, &[src, y], grid)
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let get = |name: &str| call.selection.get_u32(name).unwrap_or(0) as usize;
    let (wg, vec, streams) = (get("WG"), get("VEC"), call.selection.get_bool("STREAMS"));
    let src: Vec<u32> = call.get(0);
    let mut y = vec![0u32; p.groups as usize * wg];
    for (i, y) in y.iter_mut().enumerate() {
        let (group, id) = (i / wg % p.chunks as usize, i % wg);
        for v in 0..vec {
            let at = group * wg * vec + if streams { id * vec + v } else { v * wg + id };
            if at < p.len as usize {
                *y ^= src[4 * at..4 * at + 4].iter().fold(0, |bits, word| bits ^ word);
            }
        }
    }
    call.put(1, &y);
}

fn cases() -> Vec<TestCase> {
    let of = |streams| {
        let choice = choice(streams);
        CASES.into_iter().map(move |(name, regime, len, passes, workgroups)| {
            let wg = choice.invocations;
            let (params, grid) = Params::of(len, wg * VEC, passes, workgroups);
            let src: Vec<u32> = (0..4 * len).map(hash).collect();
            // What is not written keeps these bits.
            let poison = vec![0xdead_beef_u32; (params.groups * wg) as usize];
            exact(&format!("{name}_{}", choice.variant), regime)
                .input(&src)
                .in_out(&poison, Element::Bits)
                .launch(choice.clone(), &params, grid)
        })
    };
    of(false).chain(of(true)).collect()
}
