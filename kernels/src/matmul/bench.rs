//! Shapes to time. A case is called `MxNxK format`.

use super::tile::MAX_SPLITS;
use super::{Format, Shape, WeightFormat, gemm as gemm_kernel, gemv as gemv_kernel, int};
use crate::caps::Caps;
use crate::case::{BenchBuffer, BenchCase, hash};
use crate::choice::Launch;

const DENSE: [&str; 3] = ["f32", "f16", "bf16"];
const QUANT: [&str; 2] = ["q4_0", "q8_0"];

fn format(name: &str) -> Option<WeightFormat> {
    Some(match name {
        "f32" => WeightFormat::F32,
        "f16" => WeightFormat::F16,
        "bf16" => WeightFormat::Bf16,
        "q4_0" => Format::Q4_0.into(),
        "q8_0" => Format::Q8_0.into(),
        _ => return None,
    })
}

fn parse(name: &str) -> Option<(Shape, WeightFormat)> {
    let (dims, format_name) = name.split_once(' ')?;
    let mut dims = dims.split('x').map(str::parse);
    let mut next = || dims.next()?.ok();
    let (m, n, k) = (next()?, next()?, next()?);
    Some((Shape { m, n, k }, format(format_name)?))
}

fn weights(Shape { n, k, .. }: Shape, format: WeightFormat) -> [BenchBuffer; 2] {
    let len = (u64::from(n) * format.row_bytes(k) / 4) as usize;
    match format {
        WeightFormat::F32 => [BenchBuffer::F32(len), BenchBuffer::F32(1)],
        // The bits of f16 values are bfloat16 values too: other ones, none of them infinite.
        WeightFormat::F16 | WeightFormat::Bf16 => [BenchBuffer::F16(2 * len), BenchBuffer::F32(1)],
        WeightFormat::Quant(_) => {
            let scales = (u64::from(n) * format.scale_row_bytes(k) / 2) as usize;
            [BenchBuffer::U32((0..len as u32).map(hash).collect()), BenchBuffer::F16(scales)]
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
                flops: 2 * m64 * n64 * k64,
            });
        }
    }
    all
}

pub(super) fn gemv() -> Vec<BenchCase> {
    let rest = |shape: Shape| {
        let f32 = |len: u32| BenchBuffer::F32(len as usize);
        vec![f32(4), f32(4), f32(shape.m * shape.n)]
    };
    let launches: Launches =
        |caps, name| parse(name).map(|(s, f)| gemv_kernel::bench_launches(caps, s, f)).unwrap_or_default();
    let dense = [[1, 4096, 4096], [1, 2048, 2048], [1, 2048, 8192], [1, 768, 768], [1, 4096, 768]];
    let mut all = cases(&dense, &DENSE, rest, launches);
    all.extend(cases(&[[1, 4096, 4096], [1, 2048, 2048], [1, 14336, 4096]], &QUANT, rest, launches));
    all
}

/// Elements of y, with room for the partial sums of small results.
fn sums(shape: Shape) -> u32 {
    let splits = if shape.m * shape.n < 1 << 18 { MAX_SPLITS } else { 1 };
    splits * shape.m * shape.n
}

pub(super) fn gemm() -> Vec<BenchCase> {
    let rest = |shape: Shape| {
        let f32 = |len: u32| BenchBuffer::F32(len as usize);
        vec![f32(4), f32(4), f32(sums(shape))]
    };
    let launches: Launches =
        |caps, name| parse(name).map(|(s, f)| gemm_kernel::bench_launch(caps, s, f)).into_iter().collect();
    let dense = [[512, 4096, 4096], [1024, 1024, 1024], [128, 2048, 2048], [128, 768, 2048]];
    let mut all = cases(&dense, &DENSE, rest, launches);
    all.extend(cases(&[[8, 4096, 4096], [128, 2048, 2048], [512, 1024, 1024]], &QUANT, rest, launches));
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
