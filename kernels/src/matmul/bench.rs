//! Shapes to time. A case is called `MxNxK format`.

use super::{Format, Shape, gemm as gemm_kernel, gemv as gemv_kernel};
use crate::caps::Caps;
use crate::testing::{BenchBuffer, BenchCase, Launch};

const FORMATS: [(&str, Format); 3] = [("f32", Format::F32), ("f16", Format::F16), ("bf16", Format::Bf16)];

fn parse(name: &str) -> Option<Shape> {
    let (dims, format) = name.split_once(' ')?;
    let mut dims = dims.split('x').map(str::parse);
    let mut next = || dims.next()?.ok();
    let (m, n, k) = (next()?, next()?, next()?);
    Some(Shape { m, n, k, format: FORMATS.iter().find(|(f, _)| *f == format)?.1 })
}

fn weights(shape: Shape) -> BenchBuffer {
    let len = shape.n as usize * 8 * shape.num_k8() as usize;
    // The bits of f16 values are bfloat16 values too: other ones, none of them infinite.
    if shape.format == Format::F32 { BenchBuffer::F32(len) } else { BenchBuffer::F16(len) }
}

fn case(shape: Shape, buffers: Vec<BenchBuffer>, launches: fn(&Caps, &str) -> Vec<Launch>) -> BenchCase {
    let Shape { m, n, k, format } = shape;
    let name = FORMATS.iter().find(|(_, f)| *f == format).map_or("", |(name, _)| name);
    let [m64, n64, k64] = [m, n, k].map(u64::from);
    BenchCase {
        name: format!("{m}x{n}x{k} {name}"),
        buffers,
        launches,
        bytes: n64 * format.row_bytes(shape.num_k8()) + 4 * m64 * (n64 + k64),
        flops: 2 * m64 * n64 * k64,
    }
}

fn all(shapes: &[[u32; 3]]) -> impl Iterator<Item = Shape> {
    shapes.iter().flat_map(|&[m, n, k]| FORMATS.map(|(_, format)| Shape { m, n, k, format }))
}

pub(super) fn gemv() -> Vec<BenchCase> {
    all(&[[1, 4096, 4096], [1, 2048, 8192], [1, 768, 768], [1, 4096, 768]])
        .map(|shape| {
            let f32 = |len: u32| BenchBuffer::F32(len as usize);
            let (x, y) = (f32(shape.m * shape.k), f32(shape.m * shape.n));
            case(shape, vec![x, weights(shape), f32(4), f32(4), f32(4), f32(4), y], |caps, name| {
                parse(name).map(|s| gemv_kernel::bench_launches(caps, s)).unwrap_or_default()
            })
        })
        .collect()
}

pub(super) fn gemm() -> Vec<BenchCase> {
    all(&[[512, 4096, 4096], [1024, 1024, 1024], [128, 768, 2048]])
        .map(|shape| {
            let f32 = |len: u32| BenchBuffer::F32(len as usize);
            // Room for the partial sums of small results.
            let splits = if shape.m * shape.n < 1 << 18 { gemm_kernel::MAX_SPLITS } else { 1 };
            let (x, y) = (f32(shape.m * shape.k), f32(splits * shape.m * shape.n));
            case(shape, vec![x, weights(shape), f32(4), f32(4), y], |caps, name| {
                parse(name).map(|s| gemm_kernel::bench_launch(caps, s)).into_iter().collect()
            })
        })
        .collect()
}
