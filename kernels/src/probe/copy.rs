//! `dst = src`.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `copy.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of vec4s.
    pub len: u32,
    /// Workgroups along x.
    pub grid_x: u32,
    /// Unused.
    pub pad: [u32; 2],
}

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
    Choice {
        file: "probe/copy.wgsl",
        variant: "portable",
        selection: Selection::new().set("WG", WG).set("VEC", VEC),
        invocations: WG,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}

fn plan(len: u32, workgroups: u32) -> (Params, [u32; 3]) {
    let groups = len.div_ceil(WG * VEC);
    let grid_x = groups.min(workgroups);
    (Params { len, grid_x, pad: [0; 2] }, [grid_x, groups.div_ceil(grid_x.max(1)), 1])
}

/// Appends a copy of the whole vec4s of `src`.
///
/// # Errors
/// As [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, src: &Buffer, dst: &Buffer) -> Result<(), KernelError> {
    let len = (src.size().min(dst.size()) / 16) as u32;
    let (params, grid) = plan(len, rec.caps().workgroups);
    rec.dispatch(&SPEC, choice(), &params, &[src, dst], grid)
}

fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let src: Vec<f32> = call.get(0);
    call.put(1, &src[..4 * p.len as usize]);
}

fn cases() -> Vec<TestCase> {
    [
        ("one_vec4", Regime::OneTile, 1, 65535),
        ("partial_group", Regime::PartialTile, 700, 65535),
        ("wraps_to_y", Regime::ManyTiles, 5000, 3),
        ("hidden_state_of_llama_8b", Regime::Model, 1024, 65535),
    ]
    .into_iter()
    .map(|(name, regime, len, workgroups)| {
        let (params, grid) = plan(len, workgroups);
        TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&seeded(4 * len as usize, 1))
            .output(4 * len as usize)
            .launch(choice(), &params, grid)
    })
    .collect()
}
