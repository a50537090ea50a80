//! Cases, choices and shapes to time.

use super::mixing::{Axis, Mixing};
use super::pass::{NormKind, Params, Pass, Place, row_bytes_of, select};
use super::{Hadamard, num_blocks};
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, Element, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Launch};
use crate::quant::{Format, QuantActivation};
use crate::rows;

const TOKEN: QuantActivation = QuantActivation::Int { bits: 8, group: Format::ROW, clip: 1.0 };
const RMS: NormKind = NormKind::Rms;
const LAYER: NormKind = NormKind::Layer { bias: true };

fn rotation(n: u32, block: u32, stride: u32) -> Mixing {
    let h = Hadamard { block, stride, transposed: false };
    // Sizes without a plan are caught by a test.
    Mixing::hadamard(n, h).unwrap_or(Mixing::None)
}

fn pass(shape: [u32; 2], norm: NormKind, scale: bool, mixing: Mixing, activation: QuantActivation) -> Pass {
    let [num_rows, num_channels] = shape;
    Pass { num_rows, num_channels, norm, eps: 1e-5, scale, mixing, activation, fake: false }
}

/// The same with the numbers that the integers stand for.
fn fake(shape: [u32; 2], mixing: Mixing, activation: QuantActivation) -> Pass {
    Pass { fake: true, ..pass(shape, NormKind::None, false, mixing, activation) }
}

fn int(bits: u8, group: u32, clip: f32) -> QuantActivation {
    QuantActivation::Int { bits, group, clip }
}

fn passes() -> Vec<(&'static str, Regime, Pass)> {
    use Mixing::{None, Permute};
    use QuantActivation::Float;
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let k = |n1, n2| Mixing::Kronecker { n1, n2 };
    let h = rotation;
    vec![
        // The self-test: every stage of the usual pipeline, with work for all lanes of all subgroups.
        ("self_test", Model, pass([2, 768], RMS, true, h(768, 0, 1), TOKEN)),
        ("pow2_8", OneTile, pass([3, 8], NormKind::None, false, h(8, 0, 1), Float)),
        ("order_12", OneTile, pass([2, 12], NormKind::None, false, h(12, 0, 1), Float)),
        ("24_scalar", OneTile, pass([2, 24], RMS, false, h(24, 0, 1), Float)),
        ("plain_30", PartialTile, pass([5, 30], NormKind::None, true, None, TOKEN)),
        ("64", ManyTiles, pass([20, 64], LAYER, false, h(64, 0, 1), int(4, 32, 0.9))),
        (
            "96_blocks_of_32",
            ManyTiles,
            pass([3, 96], NormKind::None, true, h(96, 32, 1), QuantActivation::INT8),
        ),
        ("160", PartialTile, pass([2, 160], LAYER, true, h(160, 0, 1), Float)),
        ("heads_8x6", PartialTile, pass([3, 48], NormKind::None, false, h(48, 8, 6), Float)),
        ("heads_40x16", ManyTiles, pass([2, 640], NormKind::None, false, h(640, 40, 16), Float)),
        ("smollm_576", Model, pass([2, 576], RMS, false, h(576, 0, 1), int(6, 64, 1.0))),
        ("gpt_oss_2880", Model, pass([1, 2880], NormKind::None, false, h(2880, 0, 1), Float)),
        ("llama_4096", Model, pass([2, 4096], RMS, false, h(4096, 0, 1), TOKEN)),
        ("blocks_of_128", Model, pass([1, 4096], NormKind::None, false, h(4096, 128, 1), int(4, 128, 1.0))),
        ("llama_5120", Model, pass([1, 5120], NormKind::None, false, h(5120, 0, 1), Float)),
        ("llama_14336", Model, pass([1, 14336], NormKind::None, false, h(14336, 0, 1), Float)),
        ("three_axes_29568", Model, pass([1, 29568], NormKind::None, false, h(29568, 0, 1), Float)),
        ("plain_14336", Model, pass([2, 14336], NormKind::None, false, None, TOKEN)),
        ("norm_only_odd", PartialTile, pass([3, 259], LAYER, false, None, int(2, 96, 1.0))),
        ("permute_96", PartialTile, pass([3, 96], NormKind::None, true, Permute, TOKEN)),
        ("kronecker_8x8", PartialTile, pass([3, 64], NormKind::None, true, k(8, 8), Float)),
        ("kronecker_8x12", PartialTile, pass([2, 96], RMS, false, k(8, 12), TOKEN)),
        ("kronecker_1x16", OneTile, pass([2, 16], NormKind::None, false, k(1, 16), Float)),
        ("kronecker_16x5", ManyTiles, pass([4, 80], NormKind::None, false, k(16, 5), Float)),
        ("kronecker_12x10", PartialTile, pass([3, 120], NormKind::None, false, k(12, 10), Float)),
        ("kronecker_64x64", ManyTiles, pass([1, 4096], RMS, true, k(64, 64), TOKEN)),
        ("kronecker_86x128", Model, pass([1, 11008], NormKind::None, false, k(86, 128), Float)),
        ("fake_rows", Model, fake([2, 768], None, TOKEN)),
        ("fake_groups", ManyTiles, fake([3, 4096], Permute, int(8, 64, 1.0))),
        ("fake_int4_odd", PartialTile, fake([3, 259], None, int(4, 32, 1.0))),
    ]
}

/// Where the rows of a case may lie: f32 results also in y, integers only in memory.
fn places(pass: &Pass, vec4: bool) -> Vec<Place> {
    const MOST: u32 = 28 << 10;
    match pass.mixing {
        Mixing::None | Mixing::Permute => vec![Place::Direct],
        _ => {
            let fits = row_bytes_of(pass.num_channels, vec4) <= MOST;
            let memory = fits.then_some(Place::Workgroup);
            let output = (!pass.quantized() && (!fits || pass.num_channels < 100)).then_some(Place::Output);
            memory.into_iter().chain(output).collect()
        }
    }
}

pub(super) fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for (i, (_, _, pass)) in passes().into_iter().enumerate() {
        for (vec4, subgroup) in rows::widths() {
            if vec4 && !pass.mixing.can_vec4(pass.num_channels, 256) {
                continue;
            }
            for place in places(&pass, vec4) {
                // Every size once; the sizes differ in nothing else.
                let wg =
                    [64, 128, 256, 16][i % 4].max(pass.mixing.least_invocations(vec4).next_power_of_two());
                all.push(pass.choice(place, vec4, subgroup, wg));
            }
        }
    }
    all
}

pub(super) fn cases() -> Vec<TestCase> {
    let mut cases = Vec::new();
    for (i, (name, regime, pass)) in passes().into_iter().enumerate() {
        let (rows, n) = (pass.num_rows, pass.num_channels);
        let len = (rows * n) as usize;
        // Sums of as many products as channels are mixed, of numbers about as large as the input's largest ones.
        let mixed: u32 = match &pass.mixing {
            Mixing::None | Mixing::Permute => 1,
            Mixing::Hadamard { block, .. } => *block,
            Mixing::Kronecker { n1, n2 } => n1 * n2,
        };
        let size = if matches!(pass.mixing, Mixing::Kronecker { .. }) { 20.0 } else { 2.0 };
        let mut x = seeded(len, 1);
        if name == "plain_30" {
            x[..30].fill(0.0); // a row of zeros has scale 1
        }
        if pass.fake {
            x = near_codes(&pass);
        }
        let [table, p2] = matrices(&pass);
        let case = TestCase::new(name, regime, Tolerance::f32_sum(mixed.max(n / 8) as usize, size))
            .input(&x)
            .input(&seeded(n as usize, 2))
            .input(&seeded(n as usize, 3))
            .input(&seeded(n as usize, 4))
            .input(&table)
            .input(&p2);
        let blocks = (rows * num_blocks(n)) as usize;
        let mut case = if pass.quantized() && !pass.fake {
            case.in_out(&vec![0x7fu8; 32 * blocks], Element::Codes)
                .in_out(&vec![0xffff_ffffu32; 2 * blocks], Element::Scales)
        } else {
            case.output(len).in_out(&[7u32], Element::Bits)
        };
        // The self-test has all variants, the others one or two each: every one is a compilation.
        let best = pass.mixing.can_vec4(n, 256);
        for (vec4, subgroup) in rows::widths().filter(|&(vec4, _)| best || !vec4) {
            let own = vec4 == best && subgroup == (i % 2 == 1);
            if i > 0 && !own && (i % 5 > 0 || vec4 || n > 1000) {
                continue;
            }
            let least = pass.mixing.least_invocations(vec4).next_power_of_two();
            let sizes: &[u32] = if i == 0 { &[16, 64] } else { &[[16, 64, 256][i % 3]] };
            for wg in sizes {
                let wg = least.max(*wg);
                for place in places(&pass, vec4) {
                    let grid = rows::wrapped_grid(rows, 7);
                    let choice = pass.choice(place, vec4, subgroup, wg);
                    case = case.launch(choice, &pass.params(grid[0], vec4, wg), grid);
                }
            }
        }
        cases.push(case);
    }
    cases
}

/// Inputs whose codes no rounding of a product changes: within 0.3 of an integer times a step, with the largest code in
/// every run of 32 channels. A tolerance of sums then tells codes apart.
fn near_codes(pass: &Pass) -> Vec<f32> {
    let QuantActivation::Int { bits, .. } = pass.activation else { return Vec::new() };
    let (n, qmax) = (pass.num_channels as usize, ((1u32 << (bits - 1)) - 1) as f32);
    let random = seeded(2 * pass.num_rows as usize * n, 1);
    let value = |i: usize| {
        let code = if i % n % 32 == 5 { qmax } else { (random[2 * i] * 10.0).round().clamp(-qmax, qmax) };
        let within = if code.abs() < qmax { 0.3 * random[2 * i + 1].clamp(-1.0, 1.0) } else { 0.0 };
        0.05 * (code + within)
    };
    let mut x: Vec<f32> = (0..random.len() / 2).map(value).collect();
    if pass.mixing == Mixing::Permute {
        // As the permutation will have it.
        for row in x.chunks_exact_mut(n) {
            let mixed = row.to_vec();
            for (i, v) in mixed.into_iter().enumerate() {
                row[i * 7 % n] = v;
            }
        }
    }
    x
}

/// Contents of `table` and `p2`.
fn matrices(pass: &Pass) -> [Vec<u32>; 2] {
    let random = |order: u32, seed: u32| -> Vec<u32> {
        // Of about unit gain: n values of size 1 and a few of 20 are reduced to 1 / sqrt(n).
        let scale = 0.4 / (order as f32).sqrt();
        seeded((order * order) as usize, seed).iter().map(|v| (v * scale).to_bits()).collect()
    };
    match pass.mixing {
        Mixing::Hadamard { .. } => {
            let mut table = pass.mixing.table();
            table.push(0);
            [table, vec![0; 4]]
        }
        Mixing::Kronecker { n1, n2 } => [random(n1, 5), random(n2, 6)],
        // 7 is prime to the numbers of channels that are permuted.
        Mixing::Permute => [(0..pass.num_channels).map(|i| i * 7 % pass.num_channels).collect(), vec![0; 4]],
        Mixing::None => [vec![0; 4], vec![0; 4]],
    }
}

/// RMS norm, a rotation of the whole row, 8 bits: `MxK`; or the plain quantiser: `MxK plain`.
fn bench_pass(name: &str) -> Option<Pass> {
    let (dims, plain) = name.strip_suffix(" plain").map_or((name, false), |dims| (dims, true));
    let (m, k) = dims.split_once('x')?;
    let (m, k) = (m.parse().ok()?, k.parse().ok()?);
    let (norm, mixing) = if plain { (NormKind::None, Mixing::None) } else { (RMS, rotation(k, 0, 1)) };
    Some(pass([m, k], norm, false, mixing, TOKEN))
}

fn bench_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    let Some(mut pass) = bench_pass(name) else { return Vec::new() };
    let Ok((mut choice, mut vec4)) = select(caps, &pass, false) else { return Vec::new() };
    if choice.workgroup_bytes > caps.workgroup_bytes {
        // The rotation alone, in y: what follows is the plain quantiser.
        pass.activation = QuantActivation::Float;
        let Ok(in_output) = select(caps, &pass, true) else { return Vec::new() };
        (choice, vec4) = in_output;
    }
    let grid = rows::row_grid(caps, pass.num_rows);
    let params: Params = pass.params(grid[0], vec4, choice.invocations);
    vec![Launch::new(choice, &params, grid)]
}

pub(super) fn benches() -> Vec<BenchCase> {
    let names = ["1x4096", "512x4096", "1x14336", "512x14336", "1x4096 plain", "512x4096 plain"];
    let of = |name: &&str| bench_pass(name).map(|pass| ((*name).to_owned(), pass));
    names
        .iter()
        .filter_map(of)
        .map(|(name, pass)| {
            let [m, n] = [pass.num_rows, pass.num_channels].map(|d| d as usize);
            let f32 = BenchBuffer::F32;
            let [table, _] = matrices(&pass);
            let blocks = m * num_blocks(pass.num_channels) as usize;
            let orders: u32 = pass.mixing.axes().iter().map(|&Axis { order, .. }| order).sum();
            BenchCase {
                name,
                buffers: vec![
                    f32(m * n),
                    f32(n),
                    f32(4),
                    f32(4),
                    BenchBuffer::U32(table),
                    f32(4),
                    f32(m * n), // f32 rows where they do not fit workgroup memory
                    f32(2 * blocks),
                ],
                launches: bench_launches,
                bytes: (5 * m * n + 4 * n + 8 * blocks) as u64,
                written: (m * n + 8 * blocks) as u64,
                arithmetic: Arithmetic::F32,
                flops: m as u64 * n as u64 * u64::from(12 + orders),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_what_their_names_say() {
        for (name, _, pass) in passes() {
            let rotated = name.contains("heads") || name.contains("blocks_of") || name.contains("llama");
            assert!(!rotated || matches!(pass.mixing, Mixing::Hadamard { .. }), "{name} has no plan");
        }
    }
}
