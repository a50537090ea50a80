//! Quantised matrices with float activations against goldens, in parts and of mixed formats.

use girih_kernels::quant::{Row, float, pack_row};
use girih_kernels::testing::{hash, seeded};
use girih_ops::{
    Format, Frame, Gpu, Linear, Matrix, MatrixInput, Options, QuantActivation, Tensor, WeightFormat,
    embedding, linear,
};
use girih_tests::goldens::{self, Case, assert_close};
use girih_tests::on_device;

fn matrix(gpu: &Gpu, format: Format, rows: &[Row]) -> Matrix {
    let k = rows[0].codes.len() as u32;
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in rows {
        pack_row(format, row, &mut codes, &mut scales);
    }
    let matrix = Matrix::alloc(gpu, format, rows.len() as u32, k).expect("fits");
    matrix.write_packed_rows(gpu, 0, &codes, &scales).expect("whole rows");
    matrix
}

async fn run(gpu: &Gpu, x: &[f32], w: &Matrix) -> Vec<f32> {
    let mut frame = Frame::new(gpu);
    let x = Tensor::from_f32(gpu, x, &[x.len() as u32 / w.k, w.k]).expect("uploads");
    let y = linear(&mut frame, &x, w, &Linear::default()).expect("records");
    frame.submit().expect("runs");
    y.to_f32(gpu).await.expect("reads")
}

async fn table(gpu: &Gpu, ids: &[u32], w: &Matrix) -> Vec<f32> {
    let mut frame = Frame::new(gpu);
    let ids = Tensor::from_u32(gpu, ids, &[ids.len() as u32]).expect("uploads");
    let y = embedding(&mut frame, &ids, w, 1.0).expect("records");
    frame.submit().expect("runs");
    y.to_f32(gpu).await.expect("reads")
}

/// The values of the matrix by rows, and its product with a few and with many rows of x.
async fn check(gpu: &Gpu, case: &Case<'_>, format: Format, rows: &[Row]) {
    let w = matrix(gpu, format, rows);
    let ids: Vec<u32> = (0..w.n).collect();
    let want: Vec<f32> = case.f32("w").1[..(w.n * w.k) as usize].to_vec();
    assert_close(&format!("{} w", case.name), &table(gpu, &ids, &w).await, &want, 1e-37, 2e-7);
    if case.has("x") {
        let (x, y) = (case.f32("x").1, case.f32("y").1);
        for repeat in [1, 3] {
            let what = format!("{} y {repeat}", case.name);
            assert_close(&what, &run(gpu, &x.repeat(repeat), &w).await, &y.repeat(repeat), 2e-5, 1e-5);
        }
    }
}

/// Codes of 4 bits, two to a byte, the lower half first.
fn nibbles(bytes: &[i64]) -> Vec<u8> {
    bytes.iter().flat_map(|&b| [b as u8 & 15, b as u8 >> 4]).collect()
}

#[on_device("goldens/ops/mxfp4")]
async fn mxfp4(gpu: Gpu) {
    for case in goldens::op("mxfp4").cases() {
        let (shape, _) = case.f32("blocks");
        let (codes, scales) = (nibbles(&case.ints("blocks")), case.ints("scales"));
        let groups = shape[2] as usize;
        let rows: Vec<Row> = codes
            .chunks_exact(32 * groups)
            .zip(scales.chunks_exact(groups))
            .take(shape[1] as usize)
            .map(|(codes, scales)| Row {
                codes: codes.to_vec(),
                scales: scales.iter().map(|&s| float::from_e8m0(s as u8).expect("a number")).collect(),
                ..Row::default()
            })
            .collect();
        check(&gpu, &case, Format::MXFP4, &rows).await;
    }
}

#[on_device("goldens/ops/nvfp4")]
async fn nvfp4(gpu: Gpu) {
    for case in goldens::op("nvfp4").cases() {
        let (shape, _) = case.f32("packed");
        let (codes, scales) = (nibbles(&case.ints("packed")), case.ints("scales"));
        let k = 2 * shape[1] as usize;
        let rows: Vec<Row> = codes
            .chunks_exact(k)
            .zip(scales.chunks_exact(k / 16))
            .map(|(codes, scales)| Row {
                codes: codes.to_vec(),
                scales: scales.iter().map(|&s| float::from_e4m3(s as u8).expect("a number")).collect(),
                supers: case.f32("global_scale").1,
                ..Row::default()
            })
            .collect();
        check(&gpu, &case, Format::NVFP4, &rows).await;
    }
}

#[on_device("goldens/ops/fp8_block")]
async fn fp8_block(gpu: Gpu) {
    for case in goldens::op("fp8_block").cases() {
        let (shape, _) = case.f32("w_fp8");
        let (codes, (scale_shape, scales)) = (case.ints("w_fp8"), case.f32("scale_inv"));
        let block = case.number("block").map_or(Format::ROW, |b| b as u32);
        let groups = scale_shape[1] as usize;
        let rows: Vec<Row> = (0u32..)
            .zip(codes.chunks_exact(shape[1] as usize))
            .map(|(i, codes)| {
                let first = if block == Format::ROW { i } else { i / block } as usize * groups;
                Row {
                    codes: codes.iter().map(|&c| c as u8).collect(),
                    scales: scales[first..first + groups].to_vec(),
                    ..Row::default()
                }
            })
            .collect();
        check(&gpu, &case, Format::fp8(block), &rows).await;
    }
}

#[test]
fn float_formats() {
    for case in goldens::op("float_formats").cases() {
        let decode = |code: u8| match case.name.trim_start_matches("round_") {
            "e4m3fn" => float::from_e4m3(code),
            "e5m2" => float::from_e5m2(code),
            "e8m0" => float::from_e8m0(code),
            "e2m1" => Some(float::e2m1_doubled(code) as f32 / 2.0),
            other => panic!("{other}"),
        };
        if case.has("values") {
            let (_, values) = case.f32("values");
            let valid = if case.has("valid") { case.ints("valid") } else { vec![1; values.len()] };
            for (code, (&value, valid)) in (0u8..=255).zip(values.iter().zip(valid)) {
                assert_eq!(decode(code), (valid == 1).then_some(value), "{} {code}", case.name);
            }
            continue;
        }
        let encode = match case.name.as_str() {
            "round_e4m3fn" => float::to_e4m3,
            "round_e2m1" => float::to_e2m1,
            _ => continue, // nothing is stored in E5M2
        };
        for (x, code) in case.f32("x").1.into_iter().zip(case.ints("codes")) {
            assert_eq!(i64::from(encode(x)), code, "{} {x}", case.name);
        }
    }
}

#[on_device]
async fn quantised_matrices_in_several_parts_give_the_products_of_one(gpu: Gpu) {
    const LIMIT: u64 = 16 << 20;
    let (n, k) = (4300u32, 4096u32);
    let format = Format::Q8_0;
    let small = Options { max_binding_bytes: Some(LIMIT), ..Options::default() };
    let small = girih_tests::gpu_with(small).await;
    let codes: Vec<u32> = (0..n * format.code_words(k)).map(hash).collect();
    // Scales of 1 / 256.
    let scales = vec![0x1c00_1c00; (n * format.scale_words(k)) as usize];
    let x = seeded(k as usize, 1);
    let ids = [0, 4095, 4096, n - 1, n];
    let measure = async |gpu: Gpu| {
        let w = Matrix::alloc(&gpu, format, n, k).expect("fits");
        // In two writes, of which the second crosses the border of the parts.
        let rows = 4001;
        let (head, tail) = codes.split_at((rows * format.code_words(k)) as usize);
        let (scales_head, scales_tail) = scales.split_at((rows * format.scale_words(k)) as usize);
        w.write_packed_rows(&gpu, 0, head, scales_head).expect("whole rows");
        w.write_packed_rows(&gpu, rows, tail, scales_tail).expect("whole rows");
        let largest = w.parts.iter().map(|p| p.buffer.size()).max();
        (w.parts.len(), largest, run(&gpu, &x, &w).await, table(&gpu, &ids, &w).await)
    };
    let (whole, split) = (measure(gpu).await, measure(small).await);
    assert_eq!((whole.0, split.0), (1, 2));
    assert!(split.1 <= Some(LIMIT));
    assert_eq!(whole.2, split.2);
    assert_eq!(whole.3, split.3);
    assert_eq!(&split.3[(4 * k) as usize..], vec![0.0; k as usize]);
}

#[on_device]
async fn parts_of_a_matrix_may_differ_in_format(gpu: Gpu) {
    let k = 40;
    let runs = [(30, Format::Q8_0.into()), (10, WeightFormat::F16), (6, Format::Q4_0.into())];
    let w = Matrix::alloc_parts(&gpu, &runs, k).expect("fits");
    let values = seeded((46 * k) as usize, 3);
    let x = seeded((7 * k) as usize, 4);
    let mut want = vec![Vec::new(); 7];
    let mut row0 = 0;
    for (rows, format) in runs {
        let values = &values[(row0 * k) as usize..][..(rows * k) as usize];
        if let WeightFormat::Quant(format) = format {
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            for row in values.chunks_exact(k as usize) {
                pack_row(format, &girih_kernels::quant::quantize_row(format, row), &mut codes, &mut scales);
            }
            w.write_packed_rows(&gpu, row0, &codes, &scales).expect("whole rows");
        } else {
            let bytes: Vec<u8> = values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
            w.write_rows(&gpu, row0, &bytes).expect("whole rows");
        }
        let alone = Matrix::from_f32(&gpu, values, rows, k, format).expect("fits");
        let y = run(&gpu, &x, &alone).await;
        want.iter_mut().zip(y.chunks_exact(rows as usize)).for_each(|(w, y)| w.extend_from_slice(y));
        row0 += rows;
    }
    assert_eq!(run(&gpu, &x, &w).await, want.concat());
}

#[on_device]
async fn wrong_arguments_are_errors(gpu: Gpu) {
    let q = Matrix::alloc(&gpu, Format::Q4_0, 4, 64).expect("fits");
    let dense = Matrix::alloc(&gpu, WeightFormat::F32, 4, 64).expect("fits");
    let text = |result: Result<(), girih_ops::OpError>| result.expect_err("refused").to_string();
    assert_eq!(
        text(q.write_rows(&gpu, 0, &[0; 256])),
        "matrix: dense rows in a quantised part is not supported"
    );
    assert_eq!(
        text(dense.write_packed_rows(&gpu, 0, &[0; 8], &[0])),
        "matrix: codes in a dense part is not supported"
    );
    let want = "must be whole rows of codes and as many of scales within 4 rows";
    for (row, codes, scales) in [(0, 7, 1), (0, 8, 2), (0, 16, 1), (3, 16, 2), (4, 8, 1), (u32::MAX, 8, 1)] {
        let error = text(q.write_packed_rows(&gpu, row, &vec![0; codes], &vec![0; scales]));
        assert!(error.contains(want), "{error}");
    }
    assert!(
        text(dense.write_rows(&gpu, 3, &[0; 512])).contains("must be whole rows of 64 columns within 4 rows")
    );
    let bad = Format { group: 12, ..Format::Q4_0 };
    let error = Matrix::alloc(&gpu, bad, 4, 64).expect_err("no format").to_string();
    assert!(error.contains("multiple of 8"), "{error}");
    // Integer activations need integer weights.
    let input = MatrixInput { activation: QuantActivation::INT8, ..MatrixInput::default() };
    let mut frame = Frame::new(&gpu);
    let x = Tensor::from_f32(&gpu, &[0.0; 64], &[1, 64]).expect("uploads");
    let error = linear(&mut frame, &x, &dense.with_input(input), &Linear::default()).expect_err("floats");
    assert!(error.to_string().contains("int8-g32 with weights that are not quantised"), "{error}");
}

/// A kernel reads whole rows of each of its operands, and says which one is too short.
#[on_device]
async fn short_buffers_are_typed_errors(gpu: Gpu) {
    use girih_kernels::fused::Norm;
    use girih_kernels::matmul::{Act, Epilogue, Part, Shape, gemm, gemv, gemv_int};
    let format = Format::Q4_0;
    let (m, n, k) = (2, 8, 64u32);
    // x, codes, scales, weight of the norm, bias, y.
    let full =
        [4 * m * k, 4 * n * format.code_words(k), 4 * n * format.scale_words(k), 4 * k, 4 * n, 4 * m * n];
    for short in 0..full.len() {
        let buffers: Vec<_> = full
            .iter()
            .enumerate()
            .map(|(i, &bytes)| gpu.alloc(u64::from(bytes) - if i == short { 16 } else { 0 }).expect("memory"))
            .collect();
        let [x, codes, scales, weight, bias, y] = buffers.as_slice() else { unreachable!() };
        // Vectors are ranges of one buffer.
        let vectors = gpu.alloc(1024).expect("memory");
        let range = |at, like: &girih_kernels::Buffer| vectors.slice(at, like.size()).expect("within");
        let (weight, bias) = (&range(0, weight), &range(512, bias));
        let part = Part { buffer: codes, scales: Some(scales), format: format.into(), row0: 0, rows: n };
        let epilogue = Epilogue { bias: Some(bias), alpha: 1.0, act: Act::Identity, residual: None };
        let shape = Shape { m, n, k };
        let mut rec = girih_kernels::Recorder::new(&gpu);
        let args = gemv::Args { x, parts: &[part], norm: Norm::Rms { weight, eps: 1e-5 }, epilogue, y };
        let mut results = vec![gemv::record(&mut rec, args, shape)];
        let input = gemv_int::Operand::Float { x, rms_norm: Some((weight, 1e-5)) };
        let args = gemv_int::Args { input, parts: &[part], epilogue, y };
        results.push(gemv_int::record(&mut rec, args, shape));
        if short != 3 {
            let args = gemm::Args { x, parts: &[part], epilogue, scratch: None, y };
            results.push(gemm::record(&mut rec, args, shape));
        }
        let name = ["x", "w", "w_scales", "norm_weight", "bias", "y"][short];
        for result in results {
            let error = result.expect_err("a short buffer").to_string();
            assert!(error.contains(&format!("buffer {name} ")), "{name}: {error}");
        }
    }
}
