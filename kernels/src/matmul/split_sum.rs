//! Adds the partial sums of a GEMM whose channels were split over workgroups, in a fixed order.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::product::{Epilogue, EpilogueKind};
use super::{or_dummy, reference, wrap};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `split_sum.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows M.
    pub num_m: u32,
    /// Columns N of the partial sums.
    pub num_n: u32,
    /// Partial sums of each element.
    pub num_splits: u32,
    /// Columns of y.
    pub y_stride: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
    /// Factor behind the bias.
    pub alpha: f32,
    /// Cap of activations that have one.
    pub soft_cap: f32,
    /// Factor in the sigmoid of `SwiGluOai`.
    pub glu_alpha: f32,
}

pub(super) const SPEC: KernelSpec = KernelSpec {
    name: "split_sum",
    bindings: &[read("partial"), read("bias"), read("residual"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

const WG: u32 = 128;

/// Appends `y = epilogue(Σ_s partial[s])`, partial `[num_splits, M, N]`.
pub(super) fn record(
    rec: &mut Recorder,
    partial: &Buffer,
    epilogue: Epilogue<'_>,
    y: &Buffer,
    [num_splits, num_m, num_n]: [u32; 3],
) -> Result<(), KernelError> {
    let factors = [epilogue.alpha, epilogue.act.cap(), epilogue.act.glu_alpha()];
    let (params, grid) = launch(rec.caps(), epilogue.kind(), factors, [num_splits, num_m, num_n]);
    let gpu = rec.gpu().clone();
    let (bias, residual) = (or_dummy(&gpu, epilogue.bias)?, or_dummy(&gpu, epilogue.residual)?);
    rec.dispatch(&SPEC, choice(epilogue.kind()), &params, &[partial, &bias, &residual, y], grid)
}

/// Parameters and grid, given the factors and the cap of the epilogue.
pub(super) fn launch(
    caps: &Caps,
    epilogue: EpilogueKind,
    [alpha, soft_cap, glu_alpha]: [f32; 3],
    [num_splits, num_m, num_n]: [u32; 3],
) -> (Params, [u32; 3]) {
    let y_stride = epilogue.columns(num_n);
    let [grid_x, grid_y] = wrap(caps, (num_m * y_stride).div_ceil(WG));
    let params = Params { num_m, num_n, num_splits, y_stride, grid_x, alpha, soft_cap, glu_alpha };
    (params, [grid_x, grid_y, 1])
}

pub(super) fn choice(epilogue: EpilogueKind) -> Choice {
    Choice {
        file: "matmul/split_sum.wgsl",
        variant: "portable",
        selection: epilogue.apply(Selection::new().set("WG", WG)),
        invocations: WG,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}

fn choices() -> Vec<Choice> {
    (0..9)
        .flat_map(|act| [false, true].map(|glu| EpilogueKind { act, glu, bias: glu, residual: glu }))
        .map(choice)
        .collect()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (num_m, num_n) = (p.num_m as usize, p.num_n as usize);
    let partial: Vec<f32> = call.get(0);
    let finish = reference::finish(call, (1, 0), 2, [p.alpha, p.soft_cap, p.glu_alpha], p.y_stride);
    let mut y: Vec<f32> = call.get(3);
    for row in 0..num_m {
        let sum = |n: usize| {
            (0..p.num_splits as usize).map(|s| f64::from(partial[(s * num_m + row) * num_n + n])).sum()
        };
        let sums: Vec<f64> = (0..num_n).map(sum).collect();
        finish.store(&mut y, row, 0, &sums);
    }
    call.put(3, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case =
        |(name, regime): (&str, Regime), num_splits: u32, num_m: u32, num_n: u32, epilogue: EpilogueKind| {
            let y_stride = epilogue.columns(num_n);
            let groups = (num_m * y_stride).div_ceil(WG);
            let grid_x = groups.min(3);
            let [alpha, soft_cap, glu_alpha] = [0.5, 2.0, 1.7];
            let params = Params { num_m, num_n, num_splits, y_stride, grid_x, alpha, soft_cap, glu_alpha };
            TestCase::new(name, regime, Tolerance::f32_sum(num_splits as usize, 40.0))
                .input(&seeded((num_splits * num_m * num_n) as usize, 1))
                .input(&seeded(num_n as usize, 2))
                .input(&seeded((num_m * y_stride) as usize, 3))
                .output((num_m * y_stride) as usize)
                .launch(choice(epilogue), &params, [grid_x, groups.div_ceil(grid_x), 1])
        };
    let full = |act, glu| EpilogueKind { act, glu, bias: true, residual: true };
    vec![
        case(("one_tile", OneTile), 2, 2, 5, EpilogueKind::default()),
        case(("partial_tile", PartialTile), 3, 7, 37, full(5, false)),
        case(("glu", ManyTiles), 5, 33, 66, full(1, true)),
        case(("llama_1b", Model), 8, 3, 2048, EpilogueKind::default()),
    ]
}
