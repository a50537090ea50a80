//! Shapes of experts to time. A case is called `T tokens, S of E, NxK format routing`, with the height of tiles behind it where
//! slots are grouped.

use super::super::bench::{format, weights};
use super::super::product::Shape;
use super::super::{WeightFormat, gemm, gemm_int, gemv, gemv_int, int};
use super::{ExpertShape, seeded_groups};
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase, hash};
use crate::choice::Launch;
use crate::quant::Format;

/// Which experts tokens go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Routing {
    /// Each as often as the others.
    Balanced,
    /// The i-th with a frequency of 1 / i.
    Skewed,
    /// All slots of one rank to one expert.
    OneHot,
}

const ROUTINGS: [(&str, Routing); 3] =
    [("balanced", Routing::Balanced), ("skewed", Routing::Skewed), ("one-hot", Routing::OneHot)];

/// Routes of a shape; the experts of a token differ.
fn routes(shape: ExpertShape, routing: Routing) -> Vec<[u32; 2]> {
    let mut routes: Vec<[u32; 2]> = Vec::new();
    let total: f64 = (1..=shape.experts).map(|i| 1.0 / f64::from(i)).sum();
    for token in 0..shape.tokens {
        let first = routes.len();
        for j in 0..shape.slots {
            let slot = token * shape.slots + j;
            let mut expert = match routing {
                Routing::Balanced => slot % shape.experts,
                Routing::OneHot => j,
                Routing::Skewed => {
                    let mut left = f64::from(hash(slot + 1)) / 2f64.powi(32) * total;
                    let passed = (1..shape.experts).take_while(|&i| {
                        left -= 1.0 / f64::from(i);
                        left > 0.0
                    });
                    passed.count() as u32
                }
            };
            while routes[first..].iter().any(|r| r[0] == expert) {
                expert = (expert + 1) % shape.experts;
            }
            routes.push([expert, (1.0 / shape.slots as f32).to_bits()]);
        }
    }
    routes
}

/// Shape, format, routing and height of tiles, from the name of a case.
fn parse(name: &str) -> Option<(ExpertShape, &str, &str, Option<u32>)> {
    let mut parts = name.split(", ");
    let tokens = parts.next()?.strip_suffix(" tokens")?.parse().ok()?;
    let (slots, experts) = parts.next()?.split_once(" of ")?;
    let mut words = parts.next()?.split(' ');
    let (n, k) = words.next()?.split_once('x')?;
    let (format, routing) = (words.next()?, words.next()?);
    let height = parts.next().and_then(|tiles| tiles.strip_prefix("tiles of ")?.parse().ok());
    let number = |text: &str| text.parse().ok();
    let shape = ExpertShape {
        tokens,
        slots: number(slots)?,
        experts: number(experts)?,
        n: number(n)?,
        k: number(k)?,
    };
    Some((shape, format, routing, height))
}

/// What the last buffer holds, and how many experts are read, of routes and the height of tiles.
type Rows = fn(&[[u32; 2]], ExpertShape, Option<u32>) -> (Vec<u32>, u64);

/// Whether x was quantised before: then W has codes of integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum X {
    F32,
    Int8,
}

fn case(name: String, x: X, rows: Rows, launches: fn(&Caps, &str) -> Vec<Launch>) -> Option<BenchCase> {
    let (shape, format_name, routing, height) = parse(&name)?;
    let (_, routing) = *ROUTINGS.iter().find(|(known, _)| *known == routing)?;
    let format = format(format_name)?;
    let ExpertShape { tokens, slots, experts, n, k } = shape;
    let routes = routes(shape, routing);
    let (last, chosen) = rows(&routes, shape, height);
    let f32 = |len: u64| BenchBuffer::F32(len as usize);
    let [x_len, y_len] = [u64::from(tokens) * u64::from(k), shape.num_slots() * u64::from(n)];
    let mut buffers = vec![f32(x_len)];
    buffers.extend(weights(Shape { m: tokens, n: experts * n, k }, format));
    buffers.extend([f32(4), f32(4), f32(y_len)]);
    if x == X::Int8 {
        let (codes, scales) = int::seeded_codes(tokens, k, true, 1);
        buffers[0] = BenchBuffer::U32(bytemuck::pod_collect_to_vec(&codes));
        buffers.push(BenchBuffer::U32(scales.into_iter().flatten().collect()));
    }
    buffers.push(BenchBuffer::U32(last));
    let row = format.row_bytes(k) + format.scale_row_bytes(k);
    Some(BenchCase {
        name,
        buffers,
        launches,
        bytes: chosen * u64::from(n) * row + 4 * (x_len + y_len),
        written: 4 * y_len,
        arithmetic: if x == X::Int8 { Arithmetic::Int8 } else { Arithmetic::F32 },
        flops: 2 * u64::from(tokens) * u64::from(slots) * u64::from(n) * u64::from(k),
    })
}

/// Experts that are chosen at least once.
fn chosen(routes: &[[u32; 2]]) -> u64 {
    let mut experts: Vec<u32> = routes.iter().map(|r| r[0]).collect();
    experts.sort_unstable();
    experts.dedup();
    experts.len() as u64
}

/// One token: top 2 of 8 and top 8 of 128, gate and up of OLMoE and of Qwen3-30B-A3B at half their width.
pub(in super::super) fn routed() -> Vec<BenchCase> {
    let rows = |routes: &[[u32; 2]], _: ExpertShape, _: Option<u32>| {
        (routes.iter().flatten().copied().collect(), chosen(routes))
    };
    let launches = |caps: &Caps, name: &str| {
        let of = parse(name).and_then(|(shape, named, ..)| Some((shape, format(named)?)));
        of.map(|(shape, format)| gemv::routed::bench_launch(caps, shape, format)).into_iter().collect()
    };
    let mut all = Vec::new();
    for experts in ["2 of 8, 2048x1024", "8 of 64, 2048x1024", "8 of 128, 768x1024"] {
        for format in ["f16", "q4_0", "mxfp4"] {
            all.extend(case(format!("1 tokens, {experts} {format} balanced"), X::F32, rows, launches));
        }
    }
    all
}

/// Many tokens, the same number of products for 8, 32 and 128 experts, and with uneven routing.
pub(in super::super) fn grouped() -> Vec<BenchCase> {
    let rows = |routes: &[[u32; 2]], shape: ExpertShape, height: Option<u32>| {
        (seeded_groups(routes, shape.experts, height.unwrap_or(8)).0, chosen(routes))
    };
    let launches = |caps: &Caps, name: &str| {
        let of = parse(name).and_then(|(shape, named, routing, height)| {
            let (_, routing) = ROUTINGS.iter().find(|(known, _)| *known == routing)?;
            let count = seeded_groups(&routes(shape, *routing), shape.experts, height?).1;
            gemm::grouped::bench_launch(caps, shape, format(named)?, height?, count)
        });
        of.into_iter().collect()
    };
    let mut all = Vec::new();
    for (experts, routing) in
        [(8, "balanced"), (32, "balanced"), (128, "balanced"), (32, "skewed"), (32, "one-hot")]
    {
        for format in ["f16", "q4_0"] {
            for height in [8, 16, 32, 64] {
                let name =
                    format!("256 tokens, 4 of {experts}, 768x768 {format} {routing}, tiles of {height}");
                all.extend(case(name, X::F32, rows, launches));
            }
        }
    }
    all
}

/// The format of a name, where a device multiplies integers at all.
fn integers(caps: &Caps, name: &str) -> Option<Format> {
    match format(name) {
        Some(WeightFormat::Quant(format)) if caps.integer_dot => Some(format),
        _ => None,
    }
}

/// The middle one of [`routed`], of integers.
pub(in super::super) fn routed_int() -> Vec<BenchCase> {
    let rows = |routes: &[[u32; 2]], _: ExpertShape, _: Option<u32>| {
        (routes.iter().flatten().copied().collect(), chosen(routes))
    };
    let launches = |caps: &Caps, name: &str| {
        let of = parse(name).and_then(|(shape, named, ..)| Some((shape, integers(caps, named)?)));
        of.map(|(shape, format)| gemv_int::routed::bench_launch(caps, shape, format)).into_iter().collect()
    };
    let case =
        |format| case(format!("1 tokens, 8 of 64, 2048x1024 {format} balanced"), X::Int8, rows, launches);
    ["q4_0", "mxfp4"].into_iter().filter_map(case).collect()
}

/// Two of [`grouped`], of integers.
pub(in super::super) fn grouped_int() -> Vec<BenchCase> {
    let rows = |routes: &[[u32; 2]], shape: ExpertShape, height: Option<u32>| {
        (seeded_groups(routes, shape.experts, height.unwrap_or(8)).0, chosen(routes))
    };
    let launches = |caps: &Caps, name: &str| {
        let of = parse(name).and_then(|(shape, named, routing, height)| {
            let (_, routing) = ROUTINGS.iter().find(|(known, _)| *known == routing)?;
            let count = seeded_groups(&routes(shape, *routing), shape.experts, height?).1;
            gemm_int::grouped::bench_launch(caps, shape, integers(caps, named)?, height?, count)
        });
        of.into_iter().collect()
    };
    let mut all = Vec::new();
    for experts in [8, 128] {
        for height in [8, 64] {
            let name = format!("256 tokens, 4 of {experts}, 768x768 q4_0 balanced, tiles of {height}");
            all.extend(case(name, X::Int8, rows, launches));
        }
    }
    all
}
