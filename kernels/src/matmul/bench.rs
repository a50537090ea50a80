//! Shapes to time. A case is called `MxNxK format`.

use super::tile::MAX_SPLITS;
use super::{Code, Format, Shape, WeightFormat, gemm as gemm_kernel, gemv as gemv_kernel, int, reference};
use crate::caps::Caps;
use crate::case::{Arithmetic, BenchBuffer, BenchCase};
use crate::choice::Launch;
use crate::spec::KernelSpec;

const DENSE: [&str; 3] = ["f32", "f16", "bf16"];
const QUANT: [&str; 2] = ["q4_0", "q8_0"];

/// The formats that checkpoints have, by their usual names.
const NAMED: [(&str, WeightFormat); 15] = [
    ("f32", WeightFormat::F32),
    ("f16", WeightFormat::F16),
    ("bf16", WeightFormat::Bf16),
    ("q4_0", WeightFormat::Quant(Format::Q4_0)),
    ("q4_1", WeightFormat::Quant(Format::Q4_1)),
    ("q5_0", WeightFormat::Quant(Format::Q5_0)),
    ("q8_0", WeightFormat::Quant(Format::Q8_0)),
    ("q4_k", WeightFormat::Quant(Format::Q4_K)),
    ("q5_k", WeightFormat::Quant(Format::Q5_K)),
    ("q6_k", WeightFormat::Quant(Format::Q6_K)),
    ("iq4_nl", WeightFormat::Quant(Format::IQ4_NL)),
    ("mxfp4", WeightFormat::Quant(Format::MXFP4)),
    ("nvfp4", WeightFormat::Quant(Format::NVFP4)),
    ("fp8", WeightFormat::Quant(Format::fp8(128))),
    ("int4-g128", WeightFormat::Quant(Format::asymmetric(Code::Int4, 128))),
];

pub(super) fn format(name: &str) -> Option<WeightFormat> {
    NAMED.iter().find(|(known, _)| *known == name).map(|&(_, format)| format)
}

fn parse(name: &str) -> Option<(Shape, WeightFormat)> {
    let (dims, format_name) = name.split_once(' ')?;
    let mut dims = dims.split('x').map(str::parse);
    let mut next = || dims.next()?.ok();
    let (m, n, k) = (next()?, next()?, next()?);
    Some((Shape { m, n, k }, format(format_name)?))
}

/// Rows of quantised matrices that differ.
const SEEDED_ROWS: u32 = 13;

pub(super) fn weights(Shape { n, k, .. }: Shape, format: WeightFormat) -> [BenchBuffer; 2] {
    let len = (u64::from(n) * format.row_bytes(k) / 4) as usize;
    match format {
        WeightFormat::F32 => [BenchBuffer::F32(len), BenchBuffer::F32(1)],
        // The bits of f16 values are bfloat16 values too: other ones, none of them infinite.
        WeightFormat::F16 | WeightFormat::Bf16 => [BenchBuffer::F16(2 * len), BenchBuffer::F32(1)],
        WeightFormat::Quant(_) => {
            let [codes, scales] = reference::seeded_weights(n.min(SEEDED_ROWS), k, format, 2);
            let scale_bytes = (u64::from(n) * format.scale_row_bytes(k)) as usize;
            [BenchBuffer::Repeated(codes, 4 * len), BenchBuffer::Repeated(scales, scale_bytes)]
        }
    }
}

type Launches = fn(&Caps, &str) -> Vec<Launch>;

fn cases(
    shapes: &[[u32; 3]],
    formats: &[&str],
    rest: fn(Shape) -> Vec<BenchBuffer>,
    launches: Launches,
) -> Vec<BenchCase> {
    let mut all = Vec::new();
    for &[m, n, k] in shapes {
        for &name in formats {
            let Some(format) = format(name) else { continue };
            let shape = Shape { m, n, k };
            let [m64, n64, k64] = [m, n, k].map(u64::from);
            let mut buffers = vec![BenchBuffer::F32((m * k) as usize)];
            buffers.extend(weights(shape, format));
            buffers.extend(rest(shape));
            all.push(BenchCase {
                name: format!("{m}x{n}x{k} {name}"),
                buffers,
                launches,
                bytes: n64 * (format.row_bytes(k) + format.scale_row_bytes(k)) + 4 * m64 * (n64 + k64),
                written: 4 * m64 * n64,
                arithmetic: Arithmetic::F32,
                flops: 2 * m64 * n64 * k64,
            });
        }
    }
    all
}

fn gemv_rest(shape: Shape) -> Vec<BenchBuffer> {
    let f32 = |len: u32| BenchBuffer::F32(len as usize);
    vec![f32(4), f32(4), f32(shape.m * shape.n)]
}

fn gemv_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    parse(name).map(|(s, f)| gemv_kernel::bench_launches(caps, s, f)).unwrap_or_default()
}

pub(super) fn gemv() -> Vec<BenchCase> {
    let dense = [[1, 4096, 4096], [1, 2048, 2048], [1, 2048, 8192], [1, 768, 768], [1, 4096, 768]];
    let mut all = cases(&dense, &DENSE, gemv_rest, gemv_launches);
    let quant = [[1, 4096, 4096], [1, 2048, 2048], [1, 14336, 4096]];
    all.extend(cases(&quant, &QUANT, gemv_rest, gemv_launches));
    all
}

fn norm_add_rest(shape: Shape) -> Vec<BenchBuffer> {
    let f32 = |len: u32| BenchBuffer::F32(len as usize);
    let row = shape.m * shape.k;
    vec![f32(2 * shape.k), f32(4), f32(shape.m * shape.n), f32(row), f32(row)]
}

fn norm_add_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    parse(name).map(|(s, f)| gemv_kernel::norm_add::bench_launches(caps, s, f)).unwrap_or_default()
}

/// Short rows: Gemma 3 270M.
pub(super) fn norm_add() -> Vec<BenchCase> {
    cases(&[[1, 1536, 640], [1, 4096, 640]], &["f16", "q4_0"], norm_add_rest, norm_add_launches)
}

/// Elements of y, with room for the partial sums of small results.
fn sums(shape: Shape) -> u32 {
    let splits = if shape.m * shape.n < 1 << 18 { MAX_SPLITS } else { 1 };
    splits * shape.m * shape.n
}

fn gemm_rest(shape: Shape) -> Vec<BenchBuffer> {
    let f32 = |len: u32| BenchBuffer::F32(len as usize);
    vec![f32(4), f32(4), f32(sums(shape))]
}

fn gemm_launches(caps: &Caps, name: &str) -> Vec<Launch> {
    parse(name).map(|(s, f)| gemm_kernel::bench_launch(caps, s, f)).into_iter().collect()
}

pub(super) fn gemm() -> Vec<BenchCase> {
    let dense = [[512, 4096, 4096], [1024, 1024, 1024], [128, 2048, 2048], [128, 768, 2048]];
    let mut all = cases(&dense, &DENSE, gemm_rest, gemm_launches);
    let quant = [[8, 4096, 4096], [128, 2048, 2048], [512, 1024, 1024]];
    all.extend(cases(&quant, &QUANT, gemm_rest, gemm_launches));
    all
}

/// Every format with 1, 4 and 64 rows of x, at small, middle and large matrices and at a part of the head of a small model with a
/// large vocabulary: what `select` takes. Too many for every bench.
pub fn formats() -> Vec<(&'static KernelSpec, BenchCase)> {
    let picked: Launches = |caps, name| gemv_launches(caps, name).into_iter().take(1).collect();
    let names = NAMED.map(|(name, _)| name);
    let mut all = Vec::new();
    for [n, k] in [[768, 768], [2048, 2048], [4096, 4096], [131_072, 640]] {
        for m in [1, gemv_kernel::MAX_M] {
            let cases = cases(&[[m, n, k]], &names, gemv_rest, picked);
            all.extend(cases.into_iter().map(|case| (gemv_kernel::KERNEL.spec, case)));
        }
        let cases = cases(&[[64, n, k]], &names, gemm_rest, gemm_launches);
        all.extend(cases.into_iter().map(|case| (gemm_kernel::KERNEL.spec, case)));
    }
    all
}

/// A shape to time of products of integers, called `MxNxK format source`.
pub(super) fn int_case([m, n, k]: [u32; 3], format: Format, float: bool, launches: Launches) -> BenchCase {
    let shape = Shape { m, n, k };
    let (codes, scales) = int::bench_weights(n, k, format);
    let weight_bytes = 4 * (codes.len() + scales.len()) as u64;
    let (x_codes, x_scales) = int::seeded_codes(m, k, true, 1);
    let x_bytes = if float {
        4 * u64::from(m) * u64::from(k)
    } else {
        40 * u64::from(m) * u64::from(shape.num_blocks())
    };
    let x = if float {
        BenchBuffer::F32((m * k) as usize)
    } else {
        BenchBuffer::U32(bytemuck::pod_collect_to_vec(&x_codes))
    };
    let x_scales = BenchBuffer::U32(x_scales.into_iter().flatten().collect());
    let y = BenchBuffer::F32(sums(shape) as usize);
    let none = || BenchBuffer::F32(4);
    let source = if float { "f32" } else { "int8" };
    BenchCase {
        name: format!("{m}x{n}x{k} {format} {source}"),
        buffers: vec![x, BenchBuffer::U32(codes), BenchBuffer::U32(scales), none(), none(), y, x_scales],
        launches,
        bytes: weight_bytes + x_bytes + 4 * u64::from(m) * u64::from(n),
        written: 4 * u64::from(m) * u64::from(n),
        arithmetic: Arithmetic::Int8,
        flops: 2 * u64::from(m) * u64::from(n) * u64::from(k),
    }
}

/// Shape, format and whether x is f32, from a name that [`int_case`] made.
pub(super) fn parse_int(name: &str) -> Option<(Shape, Format, bool)> {
    let mut words = name.split(' ');
    let mut dims = words.next()?.split('x').map(str::parse);
    let mut next = || dims.next()?.ok();
    let shape = Shape { m: next()?, n: next()?, k: next()? };
    Some((shape, words.next()?.parse().ok()?, words.next()? == "f32"))
}
