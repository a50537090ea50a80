//! What the products share for being measured: what a recorded launch computes, and data of its shape.
//!
//! Rows of W repeat after [`SAMPLE_N`] rows and rows of x after [`SAMPLE_M`], so a twin computes a small product and
//! every element of a large one is known. Both numbers share no factor with a tile: what a kernel takes from a wrong
//! tile shows.

use super::few_rows::Config;
use super::product::{EpilogueKind, Params, Shape, join};
use super::tile::Plan;
use super::{WeightFormat, reference, split_sum};
use crate::caps::Caps;
use crate::case::{POISON, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::spec::{Contents, Cost, KernelSpec, Step, Way, Ways, Workload};

const SAMPLE_M: u32 = 7;
const SAMPLE_N: u32 = 26;

/// What a launch was recorded for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded {
    pub shape: Shape,
    pub format: WeightFormat,
    pub epilogue: EpilogueKind,
    pub params: Params,
}

impl Recorded {
    /// `None` if the launch has no weights.
    pub fn of(launch: &Launch) -> Option<Self> {
        let Data::Weights(format) = launch.choice.data else { return None };
        let params: Params = bytemuck::pod_read_unaligned(launch.params.get(..size_of::<Params>())?);
        let s = &launch.choice.selection;
        let epilogue = EpilogueKind {
            act: s.get_u32("ACT").unwrap_or(0),
            glu: s.get_bool("GLU"),
            bias: s.get_bool("HAS_BIAS"),
            residual: s.get_bool("HAS_RESIDUAL"),
        };
        let shape = Shape { m: params.num_m, n: params.num_n, k: params.num_k };
        Some(Self { shape, format, epilogue, params })
    }

    /// The same where it is all of W: a product of many rows has one tile for all parts.
    pub fn whole(launch: &Launch) -> Option<Self> {
        Self::of(launch).filter(|r| r.params.y_stride == r.epilogue.columns(r.shape.n))
    }

    /// The same for few rows: weight and bias of a norm lie in front of the bias, the weight of one before it behind.
    pub fn with_norm_vectors(self) -> Self {
        let after = self.shape.k.next_multiple_of(4);
        let bias_at = 2 * after;
        let norm_add_weight_at = (bias_at + self.bias().len() as u32).next_multiple_of(4);
        let params =
            Params { norm_weight_at: 0, norm_bias_at: after, bias_at, norm_add_weight_at, ..self.params };
        Self { params, ..self }
    }

    /// The vectors of [`Recorded::with_norm_vectors`], and a bias of zeros.
    pub fn vectors(&self, norm_weight: &[f32], norm_bias: &[f32]) -> Vec<f32> {
        join([norm_weight, norm_bias, &self.bias()]).0
    }

    /// Zeros for a bias, if there is one.
    pub fn bias(&self) -> Vec<f32> {
        vec![0.0; if self.epilogue.bias { self.shape.n as usize } else { 4 }]
    }

    /// Parameters of a product with all of W that is like the recorded one.
    pub fn params_of(&self, shape: Shape) -> Params {
        let plain = Params::plain(shape, self.epilogue.columns(shape.n));
        let Params { num_m, num_n, num_k, num_k8, n_base, y_stride, grid_x, .. } = plain;
        Params { num_m, num_n, num_k, num_k8, n_base, y_stride, grid_x, split_k8: num_k8, ..self.params }
    }

    /// A way for each configuration that the device can run.
    pub fn ways_of_few_rows(
        &self,
        caps: &Caps,
        spec: &'static KernelSpec,
        configs: Vec<Config>,
        choice: impl Fn(Config) -> Choice,
    ) -> Vec<Way> {
        let way = |config: Config| {
            let grid = config.grid(caps, self.shape.n);
            let params = Params { grid_x: grid[0], ..self.params_of(self.shape) };
            let launch = Launch::new(choice(config), &params, grid);
            way(config.to_string(), spec, launch)
        };
        configs.into_iter().map(way).filter(|way| caps.runs(&way.steps[0].launch.choice)).collect()
    }

    /// The way of a plan of many rows: a product, and where channels are divided the sum of its parts. The buffer of these
    /// comes behind those that the kernel binds.
    pub fn way_of_plan(
        &self,
        caps: &Caps,
        spec: &'static KernelSpec,
        plan: Plan,
        choice: impl Fn(bool, EpilogueKind) -> Choice,
    ) -> Way {
        const RESULT: usize = 5;
        let Plan { tile, splits, split_k8 } = plan;
        let (shape, scratch) = (self.shape, spec.bindings.len());
        let grid = tile.grid(shape.m, shape.n, splits);
        let whole = self.params_of(shape);
        if !plan.is_split() {
            return way(plan.to_string(), spec, Launch::new(choice(false, self.epilogue), &whole, grid));
        }
        let params = Params { y_stride: shape.n, split_k8, ..whole };
        let product = Step {
            spec,
            launch: Launch::new(choice(true, EpilogueKind::default()), &params, grid),
            bindings: (0..scratch).map(|i| if i == RESULT { scratch } else { i }).collect(),
        };
        let factors = [whole.alpha, whole.soft_cap, whole.glu_alpha];
        let (params, grid) = split_sum::launch(caps, self.epilogue, factors, [splits, shape.m, shape.n]);
        let sum = Step {
            spec: &split_sum::SPEC,
            launch: Launch::new(split_sum::choice(self.epilogue), &params, grid),
            bindings: vec![scratch, 3, 4, RESULT],
        };
        Way { name: plan.to_string(), steps: vec![product, sum] }
    }

    /// The product that a twin computes.
    pub fn sample(&self) -> Shape {
        let Shape { m, n, k } = self.shape;
        Shape { m: m.min(SAMPLE_M), n: n.min(SAMPLE_N), k }
    }

    /// Seeded x in f32, of the sample's rows.
    pub fn x(&self) -> Vec<u8> {
        bytemuck::cast_slice(&seeded((self.sample().m * self.shape.k) as usize, 1)).to_vec()
    }

    /// Seeded weights and scales, of the sample's rows.
    pub fn weights(&self) -> [Vec<u8>; 2] {
        reference::seeded_weights(self.sample().n, self.shape.k, self.format, 2)
    }

    /// A workload of the buffers that all products have: x, W and its scales, vectors, residual, y. Vectors are given as a
    /// whole, with biases of zero: they do not repeat. `choice` is any that is no share of the channels.
    pub fn workload(
        &self,
        x: Vec<u8>,
        [w, scales]: [Vec<u8>; 2],
        vectors: &[f32],
        choice: Choice,
    ) -> Workload {
        let (shape, small) = (self.shape, self.sample());
        let sample = Launch::new(choice, &self.params_of(small), [1; 3]);
        let repeat = |pattern: Vec<u8>, of: u32, to: u32| {
            let bytes = pattern.len() as u64 / u64::from(of) * u64::from(to);
            Contents { pattern, bytes }
        };
        let columns = |shape: Shape| self.epilogue.columns(shape.n);
        let sample_len = (small.m * columns(small)) as usize;
        let y_bytes = 4 * u64::from(shape.m) * u64::from(columns(shape));
        let residual = if self.epilogue.residual { y_bytes } else { 4 };
        let has_scales = self.format.scale_row_bytes(shape.k) > 0;
        let buffers = vec![
            repeat(x, small.m, shape.m),
            repeat(w, small.n, shape.n),
            if has_scales { repeat(scales, small.n, shape.n) } else { Contents::once(&scales) },
            Contents::once(vectors),
            Contents::repeated(&vec![0f32; sample_len], residual),
            Contents::repeated(&vec![POISON; sample_len], y_bytes),
        ];
        let size = |shape: Shape| [shape.m as usize, columns(shape) as usize];
        let (sample_shape, shape) = (size(small), size(shape));
        Workload { buffers, result: 5, sample, sample_buffer: None, sample_shape, shape, repeats: true }
    }
}

/// Shapes of many rows that have one winner: numbers of rows up to the same power of two.
pub(super) fn class_of_rows(Shape { m, n, k }: Shape) -> String {
    format!("{}x{n}x{k}", m.next_power_of_two())
}

/// The ways of many rows that the device can run.
pub(super) fn ways(caps: &Caps, shape: Shape, all: impl Iterator<Item = Way>) -> Ways {
    let ways = all.filter(|way| way.steps.iter().all(|step| caps.runs(&step.launch.choice))).collect();
    Ways { shape: class_of_rows(shape), ways }
}

/// Adds room for the partial sums of the plan that has most of them, if one has any.
pub(super) fn add_scratch(workload: &mut Workload, shape: Shape, plans: &[Plan]) {
    let bytes = plans.iter().map(|plan| plan.scratch_bytes(shape)).max().unwrap_or(0);
    if bytes > 0 {
        workload.buffers.push(Contents::repeated(&[0f32; 4], bytes));
    }
}

/// The way of a candidate that is one dispatch.
pub(super) fn way(name: String, spec: &'static KernelSpec, launch: Launch) -> Way {
    let bindings = (0..spec.bindings.len()).collect();
    Way { name, steps: vec![Step { spec, launch, bindings }] }
}

/// The rule's choice first, then the candidates that differ from it.
pub(super) fn rule_first<T: PartialEq>(rule: T, candidates: Vec<T>) -> Vec<T> {
    let others: Vec<T> = candidates.into_iter().filter(|c| *c != rule).collect();
    std::iter::once(rule).chain(others).collect()
}

/// Each weight, row of x, result and operand of the epilogue once; two operations a weight and row.
pub(super) fn cost(launch: &Launch, sizes: &[u64], _: u32) -> Cost {
    let Some(Recorded { shape, format, epilogue, params, .. }) = Recorded::of(launch) else {
        return Cost::default();
    };
    let [m, n, k] = [shape.m, shape.n, shape.k].map(u64::from);
    let splits = if launch.choice.selection.get_bool("SPLIT") { u64::from(launch.grid[2]) } else { 1 };
    let columns = u64::from(epilogue.columns(shape.n));
    let y = 4 * m * columns * splits;
    let residual = if epilogue.residual { 4 * m * columns } else { 0 };
    let s = &launch.choice.selection;
    let norm = if params.eps > 0.0 { 4 * k } else { 0 };
    let norm = if s.get_bool("LAYER_NORM_BIAS") { 2 * norm } else { norm };
    let vectors = if epilogue.bias { 4 * n } else { 0 } + norm;
    // The kernels of integers bind scales of x; codes come in blocks of 32 with 8 bytes of scale and sums.
    let codes = sizes.len() == 7 && s.get("RMS_NORM").is_none();
    let x = if codes { 40 * m * k.div_ceil(32) } else { 4 * m * k };
    let weights = n * (format.row_bytes(shape.k) + format.scale_row_bytes(shape.k));
    Cost { bytes: x + weights + vectors + residual + y, flops: 2 * m * n * k }
}
