//! Rotations and the quantiser of activations against independent results.

use girih_kernels::quant::{Format, QuantActivation, hadamard, kronecker};
use girih_kernels::testing::seeded;
use girih_kernels::{Caps, Gpu};
use girih_ops::{Frame, Norm, Quantized, RowMix, RowTransform, Tensor};
use girih_tests::goldens::{Case, assert_close, op};
use girih_tests::on_device;

fn tensor(gpu: &Gpu, case: &Case<'_>, name: &str) -> Tensor {
    let (shape, values) = case.f32(name);
    Tensor::from_f32(gpu, &values, &shape).expect("uploads")
}

async fn values(gpu: &Gpu, x: &Tensor) -> Vec<f32> {
    x.to_f32(gpu).await.expect("reads back")
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

#[on_device("goldens/ops/hadamard")]
async fn hadamard_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = op("hadamard");
    for case in goldens.cases() {
        let n = case.number("n").expect("n") as u32;
        let transposed = case.flag("transpose");
        let plan = hadamard::plan(n).expect("a plan");
        if case.has("hk") {
            let want: Vec<i64> = case.ints("hk");
            let hk = hadamard::matrix(plan.k()).expect("a matrix");
            assert_eq!(hk.into_iter().map(i64::from).collect::<Vec<_>>(), want, "{}", case.name);
        }
        let (shape, x) = case.f32("x");
        let want = case.f32("y").1;
        let mut frame = Frame::new(&gpu);
        let x_gpu = tensor(&gpu, &case, "x");
        let y = if case.number("axis") == Some(1.0) && shape.len() == 3 {
            girih_ops::hadamard_heads(&mut frame, &x_gpu, transposed)
        } else {
            let mut x = wide(&x);
            plan.apply(&mut x, transposed);
            assert_close(&format!("{} in f64", case.name), &narrow(&x), &want, 1e-6, 1e-6);
            girih_ops::hadamard(&mut frame, &x_gpu, 0, transposed)
        }
        .expect("records");
        frame.submit().expect("runs");
        assert_close(&case.name, &values(&gpu, &y).await, &want, 5e-6, 1e-5);
    }
}

#[on_device("goldens/ops/kronecker")]
async fn kronecker_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = op("kronecker");
    for case in goldens.cases() {
        let scale = case.has("diag").then(|| tensor(&gpu, &case, "diag"));
        let (p1, p2) = (tensor(&gpu, &case, "p1"), tensor(&gpu, &case, "p2"));
        let mut frame = Frame::new(&gpu);
        let x = tensor(&gpu, &case, "x");
        let y = girih_ops::kronecker(&mut frame, &x, scale.as_ref(), &p1, &p2).expect("records");
        frame.submit().expect("runs");
        let want = case.f32("y").1;
        let largest = f64::from(want.iter().fold(0.0f32, |m, v| m.max(v.abs())));
        assert_close(&case.name, &values(&gpu, &y).await, &want, 2e-6 * largest, 1e-5);

        let (n1, n2) = (p1.shape()[0] as usize, p2.shape()[0] as usize);
        let (p1, p2) = (wide(&case.f32("p1").1), wide(&case.f32("p2").1));
        let mut x = wide(&case.f32("x").1);
        if case.has("diag") {
            let diag = wide(&case.f32("diag").1);
            x.iter_mut().enumerate().for_each(|(i, v)| *v *= diag[i % diag.len()]);
        }
        let y: Vec<f64> = x.chunks(n1 * n2).flat_map(|x| kronecker::kronecker(x, &p1, &p2)).collect();
        assert_close(&format!("{} in f64", case.name), &narrow(&y), &want, 2e-6 * largest, 1e-6);
        if !case.has("w_t") {
            continue;
        }
        let i1 = kronecker::inverse(&p1, n1).expect("regular");
        let i2 = kronecker::inverse(&p2, n2).expect("regular");
        assert_close(&case.name, &narrow(&i1), &case.f32("p1_inv").1, 1e-5, 1e-4);
        assert_close(&case.name, &narrow(&i2), &case.f32("p2_inv").1, 1e-5, 1e-4);
        // x comes back: X = P1^-T Y P2^-1.
        let back: Vec<f64> = y.chunks(n1 * n2).flat_map(|y| kronecker::kronecker(y, &i1, &i2)).collect();
        assert_close(&case.name, &narrow(&back), &narrow(&x), 1e-6, 1e-6);
        let w = wide(&case.f32("w").1);
        let w_t: Vec<f64> =
            w.chunks(n1 * n2).flat_map(|w| kronecker::kronecker_weight(w, &i1, &i2)).collect();
        assert_close(&case.name, &narrow(&w_t), &case.f32("w_t").1, 1e-4, 1e-4);
        let product: Vec<f32> = y
            .chunks(n1 * n2)
            .flat_map(|y| {
                w_t.chunks(n1 * n2).map(|w| y.iter().zip(w).map(|(y, w)| y * w).sum::<f64>() as f32)
            })
            .collect();
        assert_close(&case.name, &product, &case.f32("y_lin").1, 1e-4, 1e-4);
    }
}

struct Codes {
    /// `[M, 32 B]`
    codes: Vec<i8>,
    /// `[M, B]`
    scales: Vec<f32>,
}

/// The contents of quantised rows, with their sums checked.
async fn read(gpu: &Gpu, q: &Quantized) -> Codes {
    let words = async |t: &Tensor| t.to_u32(gpu).await.expect("reads back");
    let codes: Vec<i8> =
        words(&q.codes).await.iter().flat_map(|w| w.to_le_bytes().map(u8::cast_signed)).collect();
    let scales = words(&q.scales).await;
    let row_len = 32 * q.k.div_ceil(32) as usize;
    assert_eq!(codes.len(), q.m as usize * row_len);
    for (block, (codes, scale)) in codes.chunks(32).zip(scales.chunks(2)).enumerate() {
        let sum = |c: &[i8]| c.iter().map(|&c| i16::from(c)).sum::<i16>().cast_unsigned();
        let want = u32::from(sum(&codes[..16])) | u32::from(sum(&codes[16..])) << 16;
        assert_eq!(scale[1], want, "sums of block {block}");
    }
    for row in codes.chunks(row_len.max(1)) {
        assert!(row[q.k as usize..].iter().all(|&c| c == 0), "codes beyond the row");
    }
    Codes { codes, scales: scales.chunks(2).map(|s| f32::from_bits(s[0])).collect() }
}

#[on_device("goldens/ops/fake_quant")]
async fn the_quantiser_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = op("fake_quant");
    for case in goldens.cases() {
        let bits = case.number("bits").expect("bits") as u8;
        let clip = case.number("clip").expect("clip") as f32;
        let activation = QuantActivation::Int { bits, group: Format::ROW, clip };
        let (shape, _) = case.f32("x");
        let k = *shape.last().expect("a shape") as usize;
        let mut frame = Frame::new(&gpu);
        let x = tensor(&gpu, &case, "x");
        let q =
            girih_ops::quantize_rows(&mut frame, &x, &RowTransform::default(), activation).expect("records");
        frame.submit().expect("runs");
        let got = read(&gpu, &q).await;
        let blocks = k.div_ceil(32);
        let codes: Vec<i64> =
            got.codes.chunks(32 * blocks).flat_map(|row| row[..k].iter().map(|&c| i64::from(c))).collect();
        assert_eq!(codes, case.ints("q"), "{}", case.name);
        let scales: Vec<f32> = got.scales.chunks(blocks).map(|s| s[0]).collect();
        assert!(got.scales.chunks(blocks).all(|s| s.iter().all(|v| v == &s[0])), "{}", case.name);
        assert_close(&case.name, &scales, &case.f32("scale").1, 0.0, 1e-7);
        let dq: Vec<f32> = codes.iter().enumerate().map(|(i, &q)| q as f32 * scales[i / k]).collect();
        assert_close(&case.name, &dq, &case.f32("dq").1, 0.0, 2e-7);
        let mut frame = Frame::new(&gpu);
        let fake = girih_ops::fake_quantize_rows(&mut frame, &x, &RowTransform::default(), activation);
        let fake = fake.expect("records");
        frame.submit().expect("runs");
        assert_eq!(
            fake.to_f32(&gpu).await.expect("reads"),
            dq,
            "{}: the numbers that codes stand for",
            case.name
        );
        if case.has("wq") {
            let (wq, w_scale) = (case.ints("wq"), case.f32("wscale").1);
            let y: Vec<f32> = codes
                .chunks(k)
                .zip(&scales)
                .flat_map(|(x, x_scale)| {
                    wq.chunks(k).zip(&w_scale).map(move |(w, w_scale)| {
                        x_scale * w_scale * x.iter().zip(w).map(|(x, w)| x * w).sum::<i64>() as f32
                    })
                })
                .collect();
            assert_close(&case.name, &y, &case.f32("y").1, 1e-6, 1e-6);
        }
    }
}

/// Long rows, those that do not fit workgroup memory among them, against f64: values within rounding, codes within
/// half a step and a little.
#[on_device]
async fn long_rows_are_rotated_and_quantised(device: Gpu) {
    let baseline = Caps { workgroup_bytes: 16 << 10, ..device.caps().clone() };
    let small = device.with_caps(baseline);
    let cases = [
        (&device, 4096),
        (&small, 4096),
        (&device, 11008),
        (&device, 14336),
        (&device, 29568),
        (&small, 53248),
    ];
    for (gpu, n) in cases {
        let rows = 2u32;
        let x = seeded((rows * n) as usize, n);
        let (weight, scale) = (seeded(n as usize, 8), seeded(n as usize, 9));
        let [x_gpu, w_gpu, s_gpu] = [(&x, [rows, n].as_slice()), (&weight, &[n]), (&scale, &[n])]
            .map(|(data, shape)| Tensor::from_f32(gpu, data, shape).expect("uploads"));
        let mut want = Vec::new();
        for x in x.chunks(n as usize) {
            let mean_sq = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / f64::from(n);
            let factor = 1.0 / (mean_sq + 1e-6).sqrt();
            let parts = x.iter().zip(&weight).zip(&scale);
            want.extend(parts.map(|((x, w), s)| f64::from(*x) * factor * f64::from(*w) * f64::from(*s)));
        }
        hadamard::plan(n).expect("a plan").apply(&mut want, false);
        let transform = RowTransform {
            norm: Some(Norm::Rms { weight: &w_gpu, eps: 1e-6 }),
            scale: Some(&s_gpu),
            mix: RowMix::Hadamard { block: 0 },
        };
        let mut frame = Frame::new(gpu);
        let y = girih_ops::transform_rows(&mut frame, &x_gpu, &transform).expect("records");
        let token = QuantActivation::Int { bits: 8, group: Format::ROW, clip: 1.0 };
        let q = girih_ops::quantize_rows(&mut frame, &x_gpu, &transform, token).expect("records");
        let back = girih_ops::hadamard(&mut frame, &y, 0, true).expect("records");
        frame.submit().expect("runs");
        assert_close(&format!("{n}"), &values(gpu, &y).await, &narrow(&want), 2e-5, 1e-5);
        let plain: Vec<f32> = {
            let mut back = want.clone();
            hadamard::plan(n).expect("a plan").apply(&mut back, true);
            narrow(&back)
        };
        assert_close(&format!("{n} and back"), &values(gpu, &back).await, &plain, 1e-4, 1e-5);
        let got = read(gpu, &q).await;
        let blocks = n.div_ceil(32) as usize;
        for (i, want) in want.iter().enumerate() {
            let (row, channel) = (i / n as usize, i % n as usize);
            let step = f64::from(got.scales[row * blocks + channel / 32]);
            let value = f64::from(got.codes[row * 32 * blocks + channel]) * step;
            assert!((value - want).abs() < 0.501 * step, "{n}: [{i}] is {value}, want {want}, step {step}");
        }
    }
}

#[on_device]
async fn blocks_permutations_and_groups(gpu: Gpu) {
    let x = seeded(3 * 90, 1);
    let x_gpu = Tensor::from_f32(&gpu, &x, &[3, 90]).expect("uploads");
    let index: Vec<u32> = (0..90).map(|i| i * 7 % 90).collect();
    let index_gpu = Tensor::from_u32(&gpu, &index, &[90]).expect("uploads");
    let mut frame = Frame::new(&gpu);
    let y = girih_ops::permute_columns(&mut frame, &x_gpu, &index_gpu).expect("records");
    let flat = x_gpu.reshape(&[270]).expect("a shape");
    let wide_row = Tensor::from_f32(&gpu, &seeded(2 * 160, 3), &[2, 160]).expect("uploads");
    let blocks = girih_ops::hadamard(&mut frame, &wide_row, 40, false).expect("records");
    let int4 = QuantActivation::Int { bits: 4, group: 64, clip: 1.0 };
    let q = girih_ops::quantize_rows(&mut frame, &flat, &RowTransform::default(), int4).expect("records");
    frame.submit().expect("runs");
    let want: Vec<f32> = (0..270).map(|i| x[i / 90 * 90 + index[i % 90] as usize]).collect();
    assert_eq!(values(&gpu, &y).await, want);
    let mut want = wide(&seeded(2 * 160, 3));
    hadamard::plan(40).expect("a plan").apply(&mut want, false);
    assert_close("blocks of 40", &values(&gpu, &blocks).await, &narrow(&want), 5e-6, 1e-5);
    let got = read(&gpu, &q).await;
    for (block, (codes, &scale)) in got.codes.chunks(32).zip(&got.scales).enumerate() {
        let group = &x[block / 2 * 64..(block / 2 * 64 + 64).min(270)];
        let amax = group.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!((scale - amax / 7.0).abs() <= 1e-6 * scale, "block {block}");
        for (code, x) in codes.iter().zip(&x[32 * block..]) {
            assert!((f32::from(*code) * scale - x).abs() <= 0.5001 * scale, "block {block}");
        }
    }
}

#[on_device]
async fn what_does_not_fit_is_a_typed_error(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
    let x = Tensor::from_f32(&gpu, &[0.0; 60], &[2, 30]).expect("uploads");
    let error = girih_ops::hadamard(&mut frame, &x, 0, false).expect_err("30 has no matrix").to_string();
    assert!(error.contains("30") && error.contains("known Hadamard matrix"), "{error}");
    assert!(girih_ops::hadamard(&mut frame, &x, 4, false).is_err());
    let p = Tensor::from_f32(&gpu, &[0.0; 25], &[5, 5]).expect("uploads");
    assert!(girih_ops::kronecker(&mut frame, &x, None, &p, &p).is_err());
    assert!(girih_ops::kronecker(&mut frame, &x, Some(&p), &p, &p).is_err());
    assert!(girih_ops::permute_columns(&mut frame, &x, &x).is_err());
    let none = RowTransform::default();
    for bad in [
        QuantActivation::Float,
        QuantActivation::Int { bits: 9, group: 32, clip: 1.0 },
        QuantActivation::Int { bits: 8, group: 16, clip: 1.0 },
        QuantActivation::Int { bits: 8, group: 32, clip: 0.0 },
    ] {
        assert!(girih_ops::quantize_rows(&mut frame, &x, &none, bad).is_err(), "{bad}");
    }
}
