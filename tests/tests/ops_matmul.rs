//! `linear` against independent results, and its fusions against the composition of their definitions.

use girih_kernels::activation;
use girih_ops::{
    Act, DType, Frame, GluAct, Gpu, Linear, Matrix, Norm, NormAdd, Options, Tensor, WeightType, linear,
    rms_norm_add, rms_norm_add_linear,
};
use girih_tests::goldens::{self, assert_close};
use girih_tests::on_device;

/// Cases of the file that are not plain linears: rows are routed to experts.
const NOT_COVERED: [&str; 1] = ["grouped_experts"];

async fn run(gpu: &Gpu, x: &Tensor, w: &Matrix, opts: &Linear<'_>) -> Vec<f32> {
    let mut frame = Frame::new(gpu);
    let y = linear(&mut frame, x, w, opts).expect("records");
    frame.submit().expect("runs");
    y.to_f32(gpu).await.expect("reads")
}

#[on_device("goldens/ops/matmul")]
async fn linear_agrees_with_goldens(gpu: Gpu) {
    let op = goldens::op("matmul");
    let mut covered = 0;
    for case in op.cases() {
        if NOT_COVERED.contains(&case.name.as_str()) || case.has("expert_ids") {
            continue;
        }
        covered += 1;
        // Weights are stored as they are in the file; activations of 16 bits become f32.
        let weight_type = match case.name.split('_').find(|s| s.ends_with("16w") || s.ends_with("16")) {
            Some(s) if s.starts_with("bf16") => WeightType::Bf16,
            Some(s) if s.starts_with("f16") => WeightType::F16,
            _ => WeightType::F32,
        };
        let (x_shape, x) = case.f32("x");
        let (w_shape, w) = case.f32("w");
        let (_, want) = case.f32("y");
        let [m, k] = [x_shape[x_shape.len() - 2], x_shape[x_shape.len() - 1]];
        let n = w_shape[w_shape.len() - 2];
        let bias = case.has("b").then(|| Tensor::from_f32(&gpu, &case.f32("b").1, &[n]).expect("bias"));
        let opts = Linear { bias: bias.as_ref(), ..Linear::default() };
        let mut got = Vec::new();
        for (x, w) in x.chunks_exact((m * k) as usize).zip(w.chunks_exact((n * k) as usize)) {
            let matrix = Matrix::from_f32(&gpu, w, n, k, weight_type).expect("weights");
            got.extend(run(&gpu, &Tensor::from_f32(&gpu, x, &[m, k]).expect("x"), &matrix, &opts).await);
        }
        let largest =
            x.iter().fold(0.0_f32, |a, v| a.max(v.abs())) * w.iter().fold(0.0_f32, |a, v| a.max(v.abs()));
        // A sum of K products, each at most `largest`, in f32.
        let abs = 4.0 * f64::from(f32::EPSILON) * f64::from(k).sqrt() * f64::from(largest);
        assert_close(&case.name, &got, &want, abs, 1e-6);
    }
    goldens::counted("ops/matmul: covered", covered);
}

struct Problem {
    m: usize,
    n: usize,
    k: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    norm_weight: Vec<f32>,
    norm_bias: Vec<f32>,
    bias: Vec<f32>,
}

impl Problem {
    fn new(m: usize, n: usize, k: usize) -> Self {
        let seeded = girih_kernels::testing::seeded;
        Self {
            m,
            n,
            k,
            x: seeded(m * k, 1),
            w: seeded(n * k, 2).into_iter().map(|v| v / (k as f32).sqrt()).collect(),
            norm_weight: seeded(k, 3),
            norm_bias: seeded(k, 4),
            bias: seeded(n, 5),
        }
    }

    /// `alpha (norm(x) · Wᵀ + bias)` in f64. `center`: layer normalisation; else RMS.
    fn affine(&self, center: bool, alpha: f64) -> Vec<f64> {
        let mut out = Vec::new();
        for x in self.x.chunks_exact(self.k) {
            let mut x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            let mean = if center { x.iter().sum::<f64>() / self.k as f64 } else { 0.0 };
            let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / self.k as f64;
            for (i, v) in x.iter_mut().enumerate() {
                *v = (*v - mean) / (var + 1e-5).sqrt() * f64::from(self.norm_weight[i]);
                *v += if center { f64::from(self.norm_bias[i]) } else { 0.0 };
            }
            for (w, &bias) in self.w.chunks_exact(self.k).zip(&self.bias) {
                let sum: f64 = x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum();
                out.push(alpha * (sum + f64::from(bias)));
            }
        }
        out
    }
}

async fn check(gpu: &Gpu, p: &Problem, center: bool, act: Act, f: impl Fn(f64) -> f64) {
    let tensor = |data: &[f32], shape: &[u32]| Tensor::from_f32(gpu, data, shape).expect("uploads");
    let (m, n, k) = (p.m as u32, p.n as u32, p.k as u32);
    let columns = if matches!(act, Act::Glu(_)) { p.n / 2 } else { p.n };
    let residual = girih_kernels::testing::seeded(p.m * columns, 6);
    let x = tensor(&p.x, &[m, k]);
    let w = Matrix::from_f32(gpu, &p.w, n, k, WeightType::F32).expect("weights");
    let res = tensor(&residual, &[m, columns as u32]);
    let vectors = [&p.norm_weight[..], &p.norm_bias, &p.bias];
    let together = Tensor::vectors_from_f32(gpu, vectors).expect("uploads");
    let apart = vectors.map(|vector| tensor(vector, &[vector.len() as u32]));
    let affine = p.affine(center, 0.5);
    let want: Vec<f32> = if matches!(act, Act::Glu(_)) {
        affine.chunks_exact(2).zip(&residual).map(|(v, &r)| (f(v[0]) * v[1] + f64::from(r)) as f32).collect()
    } else {
        affine.iter().zip(&residual).map(|(&v, &r)| (f(v) + f64::from(r)) as f32).collect()
    };
    for ([weight, norm_bias, bias], one_buffer) in [(together, true), (apart, false)] {
        let norm = if center {
            Norm::Layer { weight: &weight, bias: Some(&norm_bias), eps: 1e-5 }
        } else {
            Norm::Rms { weight: &weight, eps: 1e-5 }
        };
        let opts = Linear { norm: Some(norm), bias: Some(&bias), alpha: 0.5, act, residual: Some(&res) };
        let got = run(gpu, &x, &w, &opts).await;
        let name = format!("{act:?} {m}x{n}x{k} center {center}, vectors in one buffer {one_buffer}");
        assert_close(&name, &got, &want, 2e-4, 2e-5);
        if m <= 4 {
            let mut frame = Frame::new(gpu);
            linear(&mut frame, &x, &w, &opts).expect("records");
            let dispatches = frame.recording().commands().len();
            assert_eq!(dispatches, w.parts.len() + usize::from(!one_buffer), "{name}");
        }
    }
}

#[on_device]
async fn fusions_agree_with_their_definitions(gpu: Gpu) {
    // Few rows: one dispatch does it all; at K = 80 vectors are read by four, and the bias ends within four. Many: norm,
    // product (split on a GPU), sum. All share one epilogue, and the cases of `gemv` have every activation: a CPU driver
    // compiles each for a second or more.
    let acts = [
        (Act::Glu(GluAct::Silu), activation::silu as fn(f64) -> f64),
        (Act::GeluErf, activation::gelu_erf),
        (Act::SoftCap(3.0), |v| 3.0 * (v / 3.0).tanh()),
        (Act::Glu(GluAct::Relu), activation::relu),
        (Act::GeluTanh, activation::gelu_tanh),
    ];
    for ((m, n, k), acts) in [((2, 30, 81), &acts[..2]), ((3, 34, 80), &acts[2..]), ((9, 34, 600), &acts)] {
        let p = Problem::new(m, n, k);
        for &(act, f) in acts {
            check(&gpu, &p, false, act, f).await;
        }
        check(&gpu, &p, true, Act::Identity, |v| v).await;
    }
}

#[on_device]
async fn a_matrix_in_parts_gives_the_same_result(_: Gpu) {
    let options = Options { max_binding_bytes: Some(128 << 10), ..Options::default() };
    let gpu = girih_tests::gpu_with(options).await;
    for m in [1, 6] {
        let p = Problem::new(m, 400, 256);
        let matrix = Matrix::from_f32(&gpu, &p.w, 400, 256, WeightType::F32).expect("weights");
        assert_eq!(matrix.parts.len(), 4);
        check(&gpu, &p, false, Act::Glu(GluAct::GeluTanh), activation::gelu_tanh).await;
        check(&gpu, &p, false, Act::Silu, activation::silu).await;
    }
}

/// The sum and the product of [`rms_norm_add_linear`], and how many dispatches it took.
async fn norm_add(gpu: &Gpu, add: &NormAdd<'_>, w: &Matrix, opts: &Linear<'_>) -> ([Vec<f32>; 2], usize) {
    let mut frame = Frame::new(gpu);
    let (sum, y) = rms_norm_add_linear(&mut frame, add, w, opts).expect("records");
    let dispatches = frame.recording().commands().len();
    frame.submit().expect("runs");
    ([sum.to_f32(gpu).await.expect("reads"), y.to_f32(gpu).await.expect("reads")], dispatches)
}

/// However many dispatches it takes, and of a matrix in parts: the sum is that of `rms_norm_add`, the product that of
/// `linear` with it.
#[on_device]
async fn the_norm_behind_a_block_goes_into_the_next_product(_: Gpu) {
    let options = Options { max_binding_bytes: Some(128 << 10), ..Options::default() };
    let gpu = girih_tests::gpu_with(options).await;
    for (m, n, k, parts) in [(1, 34, 80, 1), (4, 400, 256, 4), (3, 34, 81, 1), (9, 34, 80, 1)] {
        let p = Problem::new(m, n, k);
        let [m, n, k] = [m as u32, n as u32, k as u32];
        let w = Matrix::from_f32(&gpu, &p.w, n, k, WeightType::F32).expect("weights");
        assert_eq!(w.parts.len(), parts);
        let x = Tensor::from_f32(&gpu, &p.x, &[m, k]).expect("x");
        let stream = girih_kernels::testing::seeded((m * k) as usize, 6);
        let residual = Tensor::from_f32(&gpu, &stream, &[m, k]).expect("stream");
        // The weight of the norm behind the block is the other's bias.
        let vectors = [&p.norm_weight[..], &p.norm_bias, &p.bias];
        let [norm_weight, weight, bias] = Tensor::vectors_from_f32(&gpu, vectors).expect("uploads");
        let apart = Tensor::from_f32(&gpu, &p.norm_bias, &[k]).expect("uploads");
        let norm = Some(Norm::Rms { weight: &norm_weight, eps: 1e-5 });
        let plain = Linear::default();
        let fused = Linear { norm, bias: Some(&bias), act: Act::Glu(GluAct::Silu), ..plain };
        for (opts, weight, one_buffer) in
            [(&fused, &weight, true), (&plain, &weight, true), (&fused, &apart, false)]
        {
            let add = NormAdd { x: &x, weight, eps: 1e-3, residual: &residual };
            let (got, dispatches) = norm_add(&gpu, &add, &w, opts).await;
            let mut frame = Frame::new(&gpu);
            let sum = rms_norm_add(&mut frame, &x, weight, 1e-3, &residual).expect("records");
            let y = linear(&mut frame, &sum, &w, opts).expect("records");
            let apart = frame.recording().commands().len();
            frame.submit().expect("runs");
            let name = format!("{m}x{n}x{k}, one buffer {one_buffer}");
            assert_close(&name, &got[0], &sum.to_f32(&gpu).await.expect("reads"), 1e-5, 1e-5);
            assert_close(&name, &got[1], &y.to_f32(&gpu).await.expect("reads"), 2e-4, 2e-5);
            // The norm is saved but on CPUs at their best, of more rows, and where rows are no whole groups.
            let saves = gpu.caps().tier < girih_kernels::Tier::Cpu && m <= 4 && k % 8 == 0 && one_buffer;
            assert_eq!(dispatches, apart - usize::from(saves), "{name}");
        }
    }
}

#[on_device]
async fn wrong_arguments_are_errors(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
    let matrix =
        |n, k| Matrix::from_f32(&gpu, &vec![0.0; (n * k) as usize], n, k, WeightType::F32).expect("w");
    let x = Tensor::from_f32(&gpu, &[0.0; 12], &[2, 6]).expect("x");
    let mut error =
        |w: &Matrix, opts: Linear<'_>| linear(&mut frame, &x, w, &opts).expect_err("refused").to_string();
    let plain = Linear::default();
    assert_eq!(error(&matrix(3, 5), plain), "linear: x has shape [2, 6], must be [2, 5]");
    let glu = Linear { act: Act::Glu(GluAct::Silu), ..plain };
    assert_eq!(error(&matrix(3, 6), glu), "linear: rows of w is 3, must be even: pairs of gate and up");
    let cap = Linear { act: Act::SoftCap(0.0), ..plain };
    assert_eq!(error(&matrix(3, 6), cap), "linear: cap of the activation is 0, must be positive and finite");
    let bias = Linear { bias: Some(&x), ..plain };
    assert_eq!(error(&matrix(3, 6), bias), "linear: bias has shape [2, 6], must be [3]");
    assert!(frame.recording().commands().is_empty());
    let empty = Tensor::from_buffer(gpu.alloc(4).expect("memory"), &[0, 6], DType::F32).expect("x");
    let y = linear(&mut frame, &empty, &matrix(3, 6), &plain).expect("no rows are no work");
    assert_eq!(y.shape(), [0, 3]);
    // Of the norm behind a block, in one dispatch (K = 8) or two.
    for k in [6, 8] {
        let x = Tensor::from_f32(&gpu, &vec![0.0; 2 * k as usize], &[2, k]).expect("x");
        let short = Tensor::from_f32(&gpu, &[0.0; 4], &[4]).expect("weight");
        let weight = Tensor::from_f32(&gpu, &vec![0.0; k as usize], &[k]).expect("weight");
        let mut refused = |add: NormAdd<'_>, n: u32| {
            rms_norm_add_linear(&mut frame, &add, &matrix(3, n), &plain).expect_err("refused").to_string()
        };
        let add = NormAdd { x: &x, weight: &weight, eps: 1e-5, residual: &x };
        let error = refused(NormAdd { weight: &short, ..add }, k);
        assert!(error.contains(&format!("weight has shape [4], must be [{k}]")), "{error}");
        let error = refused(NormAdd { residual: &weight, ..add }, k);
        assert!(error.contains(&format!("residual has shape [{k}], must be [2, {k}]")), "{error}");
        let error = refused(add, 16);
        assert!(error.contains(&format!("x has shape [2, {k}], must be [2, 16]")), "{error}");
    }
}
