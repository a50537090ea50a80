//! Products with a ternary matrix.

use bytemuck::{Pod, Zeroable};

use super::{Matrix, Seeded, TEAMS, bindings, choice, grid, pick, values};
use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Launch};
use crate::error::KernelError;
use crate::quant::dictionary::dictionary;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `ternary_gemv.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows of x M.
    pub num_rows: u32,
    /// Rows of W N.
    pub n: u32,
    /// Columns K.
    pub k: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
}

const FILE: &str = "ternary/ternary_gemv.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "ternary_gemv",
    bindings: &[
        read("dictionary").in_part(),
        read("codes"),
        read("starts"),
        read("levels"),
        read("x"),
        read_write("y"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches, cases_of: None, tuning: None, cost: Some(cost) };

/// Appends `y = x Wᵀ`: x `[M, K]`, y `[M, N]`, f32. Each row of x decodes W again: meant for few.
///
/// # Errors
/// No rows or columns, more rows of x than workgroups along an axis, buffers that are too short, sizes beyond 32 bits, and as
/// [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    w: Matrix<'_>,
    x: &Buffer,
    y: &Buffer,
    num_rows: u32,
) -> Result<(), KernelError> {
    let [dictionary, codes, starts, levels] = bindings(SPEC.name, w)?;
    let [x_len, y_len] = [w.k, w.n].map(|n| rows::elements(SPEC.name, num_rows, n).map(u64::from));
    rows::check_sizes(SPEC.name, [("x", Some(x), 4 * x_len?), ("y", Some(y), 4 * y_len?)])?;
    let launch = launch(rec.caps(), [num_rows, w.n, w.k]);
    rec.launch(&SPEC, &launch, &[dictionary, codes, starts, levels, x, y])
}

fn launch(caps: &Caps, [num_rows, n, k]: [u32; 3]) -> Launch {
    let team = pick(caps, SPEC.name, k);
    let [x, y, _] = grid(n, team, caps.workgroups);
    Launch::new(choice(FILE, team), &Params { num_rows, n, k, grid_x: x }, [x, y, num_rows])
}

fn choices() -> Vec<Choice> {
    TEAMS.map(|team| choice(FILE, team)).into()
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let (n, k) = (p.n as usize, p.k as usize);
    let w = values(call, p.n, p.k);
    let x: Vec<f32> = call.get(4);
    let mut y: Vec<f32> = call.get(5);
    for (x, y) in x.chunks_exact(k).zip(y.chunks_exact_mut(n)).take(p.num_rows as usize) {
        for (y, w) in y.iter_mut().zip(w.chunks_exact(k)) {
            *y = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>() as f32;
        }
    }
    call.put(5, &y);
}

/// Words, levels, x and y, each once; of the dictionary what words name, which is not counted.
fn cost(launch: &Launch, bytes: &[u64], _: u32) -> Cost {
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    let [m, n, k] = [p.num_rows, p.n, p.k].map(u64::from);
    Cost { bytes: bytes.iter().skip(1).sum(), flops: 2 * m * n * k }
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), [m, n, k]: [u32; 3]| {
        let case = TestCase::new(name, regime, Tolerance::f32_sum(k as usize, 8.0));
        let mut case =
            Seeded::new(n, k).inputs(case).input(&seeded((m * k) as usize, 1)).output((m * n) as usize);
        for team in TEAMS {
            let [x, y, _] = grid(n, team, 3);
            let params = Params { num_rows: m, n, k, grid_x: x };
            case = case.launch(choice(FILE, team), &params, [x, y, m]);
        }
        case
    };
    vec![
        case(("one", OneTile), [1, 1, 1]),
        case(("odd", PartialTile), [3, 5, 131]),
        case(("many", ManyTiles), [2, 37, 600]),
        case(("switch", Model), [1, 24, 3072]),
    ]
}

/// Rows that are different; others repeat them.
const BENCH: [[u32; 3]; 2] = [[1, 3072, 768], [1, 2048, 2048]];

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let shape = BENCH.into_iter().find(|shape| bench_name(*shape) == name);
    shape.map(|shape| launch(caps, shape)).into_iter().collect()
}

fn bench_name([m, n, k]: [u32; 3]) -> String {
    format!("{m}x{n}x{k}")
}

/// A switch layer's matrix, and a larger one.
fn benches() -> Vec<BenchCase> {
    BENCH
        .map(|[m, n, k]| {
            let of = Seeded::new(n, k);
            let words = of.code_words();
            let bytes = 4 * (words.len() as u64 + u64::from(2 * n + 1) + u64::from(m * (n + k)));
            BenchCase {
                name: bench_name([m, n, k]),
                buffers: vec![
                    BenchBuffer::U32(dictionary().as_flattened().to_vec()),
                    BenchBuffer::U32(words),
                    BenchBuffer::U32(of.starts),
                    BenchBuffer::U32(of.levels),
                    BenchBuffer::F32((m * k) as usize),
                    BenchBuffer::F32((m * n) as usize),
                ],
                launches: bench_launches,
                bytes,
                written: 4 * u64::from(m * n),
                flops: 2 * u64::from(m) * u64::from(n) * u64::from(k),
                arithmetic: Arithmetic::F32,
            }
        })
        .into()
}
