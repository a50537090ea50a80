//! Linear layers whose input is scaled, mixed and quantised, against the definition in f64: what the loader and
//! `girih quantize` rely on.

use girih_kernels::Caps;
use girih_kernels::quant::{hadamard, kronecker, quantize_row};
use girih_kernels::testing::seeded;
use girih_ops::{
    Act, Format, Frame, GluAct, Gpu, Linear, Matrix, MatrixInput, Mix, Norm, QuantActivation, Tensor,
    WeightFormat, linear,
};
use girih_tests::goldens::{assert_close, counted, op};
use girih_tests::on_device;

/// The device as if it had no instruction for products of integers.
fn without_integer_dot(gpu: &Gpu) -> Gpu {
    gpu.with_caps(Caps { integer_dot: false, ..gpu.caps().clone() })
}

/// A mixing on the host: its name, what it does to a row of x, how a matrix is told.
struct Mixing {
    name: &'static str,
    row: fn(&[f64]) -> Vec<f64>,
    mix: fn(&Gpu, u32) -> Mix,
}

/// An invertible matrix near an orthogonal one.
fn factor(order: usize, seed: u32) -> Vec<f64> {
    let noise = seeded(order * order, seed);
    (0..order * order)
        .map(|i| f64::from(noise[i]) / 10.0 + f64::from(u8::from(i % (order + 1) == 0)))
        .collect()
}

fn permuted(k: usize) -> Vec<u32> {
    (0..k as u32).map(|j| (7 * j + 3) % k as u32).collect()
}

fn pair(k: usize) -> (usize, usize) {
    let (a, b) = kronecker::factor_pair(k as u32);
    (a as usize, b as usize)
}

const MIXINGS: [Mixing; 5] = [
    Mixing { name: "none", row: <[f64]>::to_vec, mix: |_, _| Mix::None },
    Mixing {
        name: "hadamard",
        row: |x| {
            let mut x = x.to_vec();
            hadamard::plan(x.len() as u32).expect("a plan").apply(&mut x, false);
            x
        },
        mix: |_, _| Mix::Hadamard { block: 0 },
    },
    Mixing {
        name: "hadamard-8",
        row: |x| {
            let mut x = x.to_vec();
            hadamard::plan(8).expect("a plan").apply(&mut x, false);
            x
        },
        mix: |_, _| Mix::Hadamard { block: 8 },
    },
    Mixing {
        name: "kronecker",
        row: |x| {
            let (n1, n2) = pair(x.len());
            kronecker::kronecker(x, &factor(n1, 1), &factor(n2, 2))
        },
        mix: |gpu, k| {
            let (n1, n2) = pair(k as usize);
            let upload = |order: usize, seed| {
                let p: Vec<f32> = factor(order, seed).into_iter().map(|v| v as f32).collect();
                Tensor::from_f32(gpu, &p, &[order as u32; 2]).expect("uploads")
            };
            Mix::Kronecker { p1: upload(n1, 1), p2: upload(n2, 2) }
        },
    },
    Mixing {
        name: "permute",
        row: |x| permuted(x.len()).into_iter().map(|j| x[j as usize]).collect(),
        mix: |gpu, k| Mix::Permute(Tensor::from_u32(gpu, &permuted(k as usize), &[k]).expect("uploads")),
    },
];

/// The values that a row enters the product with, by the definition of [`QuantActivation`].
fn quantised(x: &[f64], activation: QuantActivation) -> Vec<f64> {
    let QuantActivation::Int { bits, group, clip } = activation else { return x.to_vec() };
    let top = f64::from((1u32 << (bits - 1)) - 1);
    let size = if group == Format::ROW { x.len() } else { group as usize };
    x.chunks(size)
        .flat_map(|group| {
            let largest = group.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
            let scale = if largest > 0.0 { f64::from(clip) * largest / top } else { 1.0 };
            group
                .iter()
                .map(move |v| scale * (v / scale).round_ties_even().clamp(-top - 1.0, top))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A layer of 2·N rows in two formats, with norm, scale, mixing, quantiser, bias, gated unit and residual.
async fn check(gpu: &Gpu, m: usize, k: usize, activation: QuantActivation, mixing: &Mixing, norm: usize) {
    let runs = [(26u32, Format::Q4_0), (22, Format::Q5_1)];
    let n: u32 = runs.iter().map(|r| r.0).sum();
    let what = format!("{m}x{n}x{k} {activation} {} norm {norm}", mixing.name);
    let scaled =
        |len: usize, seed, scale: f32| -> Vec<f32> { seeded(len, seed).iter().map(|v| v * scale).collect() };
    let (x, w) = (seeded(m * k, 3), scaled(n as usize * k, 4, 1.0 / (k as f32).sqrt()));
    let around_one = |len, seed| -> Vec<f32> { seeded(len, seed).iter().map(|v| 1.0 + v / 50.0).collect() };
    let (norm_w, norm_b, scale) = (around_one(k, 5), scaled(k, 6, 0.1), around_one(k, 7));
    let (bias, residual) = (scaled(n as usize, 8, 0.1), seeded(m * n as usize / 2, 9));

    let matrix = Matrix::alloc_parts(gpu, &runs.map(|(rows, f)| (rows, WeightFormat::Quant(f))), k as u32)
        .expect("fits");
    let (mut rows, mut r) = (Vec::new(), 0u32);
    for (count, format) in runs {
        for _ in 0..count {
            let row = quantize_row(format, &w[r as usize * k..][..k]);
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            girih_kernels::quant::pack_row(format, &row, &mut codes, &mut scales);
            matrix.write_packed_rows(gpu, r, &codes, &scales).expect("a row");
            rows.push(row.values(format));
            r += 1;
        }
    }
    let upload = |values: &[f32], shape: &[u32]| Tensor::from_f32(gpu, values, shape).expect("uploads");
    let plain = mixing.name == "none";
    let input_scale = (!plain).then(|| upload(&scale, &[k as u32]));
    let matrix =
        matrix.with_input(MatrixInput { activation, scale: input_scale, mix: (mixing.mix)(gpu, k as u32) });
    let (norm_w_gpu, norm_b_gpu) = (upload(&norm_w, &[k as u32]), upload(&norm_b, &[k as u32]));
    let opts = Linear {
        norm: match norm {
            0 => None,
            1 => Some(Norm::Rms { weight: &norm_w_gpu, eps: 1e-5 }),
            _ => Some(Norm::Layer { weight: &norm_w_gpu, bias: Some(&norm_b_gpu), eps: 1e-5 }),
        },
        bias: Some(&upload(&bias, &[n])),
        alpha: 0.5,
        act: Act::Glu(GluAct::Silu),
        residual: Some(&upload(&residual, &[m as u32, n / 2])),
    };
    let mut frame = Frame::new(gpu);
    let y = linear(&mut frame, &upload(&x, &[m as u32, k as u32]), &matrix, &opts).expect("records");
    frame.submit().expect("runs");
    let got = y.to_f32(gpu).await.expect("reads");

    let mut want = Vec::new();
    for (t, x) in x.chunks_exact(k).enumerate() {
        let mut v: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        if norm > 0 {
            let mean = if norm == 2 { v.iter().sum::<f64>() / k as f64 } else { 0.0 };
            let square = v.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / k as f64;
            let rstd = 1.0 / (square + 1e-5).sqrt();
            for (i, v) in v.iter_mut().enumerate() {
                *v = (*v - mean) * rstd * f64::from(norm_w[i])
                    + if norm == 2 { f64::from(norm_b[i]) } else { 0.0 };
            }
        }
        if !plain {
            v.iter_mut().zip(&scale).for_each(|(v, &s)| *v *= f64::from(s));
        }
        let v = quantised(&(mixing.row)(&v), activation);
        let column = |r: usize| {
            let sum: f64 = v.iter().zip(&rows[r]).map(|(a, b)| a * b).sum();
            0.5 * (sum + f64::from(bias[r]))
        };
        for i in 0..n as usize / 2 {
            let (gate, up) = (column(2 * i), column(2 * i + 1));
            want.push(
                (gate / (1.0 + (-gate).exp()) * up + f64::from(residual[t * n as usize / 2 + i])) as f32,
            );
        }
    }
    // A code at a tie may fall to the other side: one step of x times a weight, in a few sums.
    let largest = want.iter().fold(0.0, |max: f32, v| max.max(v.abs()));
    let step =
        if let QuantActivation::Int { bits, .. } = activation { 0.2 / f32::from(1u16 << bits) } else { 1e-5 };
    let far = got.iter().zip(&want).filter(|(g, w)| (*g - *w).abs() > 2e-5 * largest).count();
    assert!(
        far * 20 <= want.len() * usize::from(step > 1e-4),
        "{what}: {far} of {} values differ",
        want.len()
    );
    assert_close(&what, &got, &want, f64::from(step * largest), 1e-5);
}

#[on_device]
async fn inputs_are_scaled_mixed_and_quantised_as_defined(gpu: Gpu) {
    let int = |bits, group, clip| QuantActivation::Int { bits, group, clip };
    let activations = [
        QuantActivation::Float,
        QuantActivation::INT8,
        int(8, Format::ROW, 1.0),
        int(4, Format::ROW, 0.9),
        int(8, 64, 1.0),
    ];
    // Every mixing with one row and with many; 40 and 96 are no powers of two.
    for (i, mixing) in MIXINGS.iter().enumerate() {
        for (j, (m, k)) in [(1, 40), (7, 96)].into_iter().enumerate() {
            for (a, activation) in
                activations.into_iter().enumerate().filter(|(a, _)| (a + i + j) % 2 == 0 || i < 2)
            {
                check(&gpu, m, k, activation, mixing, (a + j) % 3).await;
            }
        }
    }
    check(&gpu, 4, 96, QuantActivation::INT8, &MIXINGS[0], 1).await;
    check(&gpu, 5, 64, QuantActivation::INT8, &MIXINGS[0], 2).await;
    check(&gpu, 3, 768, int(4, Format::ROW, 0.9), &MIXINGS[1], 1).await;
}

/// Where integers have no instruction, the numbers that they stand for are multiplied: by the same definition.
#[on_device]
async fn without_integer_dot_products_are_those_of_floats(gpu: Gpu) {
    let gpu = without_integer_dot(&gpu);
    let int = |bits, group, clip| QuantActivation::Int { bits, group, clip };
    check(&gpu, 1, 40, QuantActivation::INT8, &MIXINGS[0], 1).await;
    check(&gpu, 7, 96, QuantActivation::INT8, &MIXINGS[0], 2).await;
    check(&gpu, 3, 768, int(4, Format::ROW, 0.9), &MIXINGS[1], 1).await;
    check(&gpu, 7, 96, int(8, 64, 1.0), &MIXINGS[3], 0).await;
    check(&gpu, 1, 40, int(8, Format::ROW, 1.0), &MIXINGS[4], 0).await;
    let matrix = Matrix::alloc(&gpu, Format::Q4_0, 64, 64).expect("fits");
    let matrix =
        matrix.with_input(MatrixInput { activation: QuantActivation::INT8, ..MatrixInput::default() });
    for m in [1, 4, 9] {
        let mut frame = Frame::new(&gpu);
        let x = Tensor::from_f32(&gpu, &seeded(64 * m as usize, 1), &[m, 64]).expect("uploads");
        linear(&mut frame, &x, &matrix, &Linear::default()).expect("records");
        let names: Vec<&str> = frame.recorder().dispatches().map(|d| d.spec.name).collect();
        assert_eq!(names[0], "transform_rows");
        assert!(names.iter().all(|name| !name.ends_with("_int")), "{names:?}");
    }
}

/// Golden `fake_quant`: both operands quantised by rows, integer product.
#[on_device("goldens/ops/fake_quant")]
async fn integer_products_agree_with_the_goldens(gpu: Gpu) {
    let goldens = op("fake_quant");
    let mut products = 0;
    for case in goldens.cases().into_iter().filter(|c| c.has("wq")) {
        let (bits, clip) =
            (case.number("bits").expect("bits") as u8, case.number("clip").expect("clip") as f32);
        let (shape, x) = case.f32("x");
        let (k, scales, codes) = (shape[1] as usize, case.f32("wscale").1, case.ints("wq"));
        let format: Format = "int8-grow-f32-z0".parse().expect("a format");
        let matrix = Matrix::alloc(&gpu, format, scales.len() as u32, k as u32).expect("fits");
        for (r, (codes, &scale)) in codes.chunks_exact(k).zip(&scales).enumerate() {
            let codes = codes.iter().map(|&c| c as i8 as u8).collect();
            let row = girih_kernels::quant::Row { codes, scales: vec![scale], ..Default::default() };
            let (mut words, mut scale_words) = (Vec::new(), Vec::new());
            girih_kernels::quant::pack_row(format, &row, &mut words, &mut scale_words);
            matrix.write_packed_rows(&gpu, r as u32, &words, &scale_words).expect("a row");
        }
        let activation = QuantActivation::Int { bits, group: Format::ROW, clip };
        let matrix = matrix.with_input(MatrixInput { activation, ..MatrixInput::default() });
        for repeat in [1, 3] {
            let x = x.repeat(repeat);
            let mut frame = Frame::new(&gpu);
            let x = Tensor::from_f32(&gpu, &x, &[shape[0] * repeat as u32, shape[1]]).expect("uploads");
            let y = linear(&mut frame, &x, &matrix, &Linear::default()).expect("records");
            frame.submit().expect("runs");
            let got = y.to_f32(&gpu).await.expect("reads");
            assert_close(&case.name, &got, &case.f32("y").1.repeat(repeat), 1e-5, 1e-5);
            products += 1;
        }
        // Sums of floats are rounded, those of integers are not.
        let gpu = without_integer_dot(&gpu);
        let mut frame = Frame::new(&gpu);
        let x = Tensor::from_f32(&gpu, &x, &[shape[0], shape[1]]).expect("uploads");
        let y = linear(&mut frame, &x, &matrix, &Linear::default()).expect("records");
        frame.submit().expect("runs");
        let got = y.to_f32(&gpu).await.expect("reads");
        assert_close(&case.name, &got, &case.f32("y").1, 1e-4, 1e-5);
    }
    counted("ops/fake_quant: products", products);
}

/// The input of a matrix says nothing of its rows, unless they are scaled or mixed to meet it.
#[on_device]
async fn rows_of_a_table_are_read_unless_they_are_mixed(gpu: Gpu) {
    let ids = Tensor::from_u32(&gpu, &[1], &[1]).expect("uploads");
    let rows = |input: MatrixInput| {
        let table = Matrix::alloc(&gpu, Format::Q8_0, 2, 32).expect("fits").with_input(input);
        girih_ops::embedding(&mut Frame::new(&gpu), &ids, &table, 1.0).map(|_| ())
    };
    let activation = QuantActivation::INT8;
    rows(MatrixInput { activation, ..MatrixInput::default() }).expect("rows");
    rows(MatrixInput { activation, mix: Mix::Hadamard { block: 0 }, scale: None }).expect_err("mixed rows");
}

/// What is not a number does not become one: neither in front of a product nor on its way.
#[on_device]
async fn nan_and_infinity_stay_through_the_quantisers(gpu: Gpu) {
    let without = without_integer_dot(&gpu);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let problems = [(&gpu, 2, 32), (&gpu, 2, Format::ROW), (&gpu, 7, 32), (&gpu, 7, Format::ROW)];
        for (gpu, m, group) in problems.into_iter().chain([(&without, 2, 32), (&without, 2, Format::ROW)]) {
            let activation = QuantActivation::Int { bits: 8, group, clip: 1.0 };
            let (n, k) = (40, 96);
            let matrix = Matrix::alloc(gpu, Format::Q8_0, n, k).expect("fits");
            for r in 0..n {
                let row = quantize_row(Format::Q8_0, &seeded(k as usize, r));
                let (mut codes, mut scales) = (Vec::new(), Vec::new());
                girih_kernels::quant::pack_row(Format::Q8_0, &row, &mut codes, &mut scales);
                matrix.write_packed_rows(gpu, r, &codes, &scales).expect("a row");
            }
            let matrix = matrix.with_input(MatrixInput { activation, ..MatrixInput::default() });
            let mut x = seeded((m * k) as usize, 1);
            x[k as usize + 50] = bad;
            let x = Tensor::from_f32(gpu, &x, &[m, k]).expect("uploads");
            let mut frame = Frame::new(gpu);
            let y = linear(&mut frame, &x, &matrix, &Linear::default()).expect("records");
            frame.submit().expect("runs");
            let y = y.to_f32(gpu).await.expect("reads");
            for (row, y) in y.chunks(n as usize).enumerate() {
                assert!(
                    y.iter().all(|v| v.is_finite() != (row == 1)),
                    "{bad}, {activation}, row {row}: {y:?}"
                );
            }
        }
    }
}
