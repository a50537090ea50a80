//! Gated activations, sums and embeddings against independent results; softmax too.

use girih_kernels::{Caps, Gpu};
use girih_ops::{Activation, Frame, Glu, GluLayout, Matrix, Softmax, Tensor, WeightType};
use girih_tests::goldens::{Case, assert_close, op};
use girih_tests::on_device;

fn tensor(gpu: &Gpu, case: &Case<'_>, name: &str) -> Tensor {
    let (shape, values) = case.f32(name);
    Tensor::from_f32(gpu, &values, &shape).expect("uploads")
}

async fn values(gpu: &Gpu, x: &Tensor) -> Vec<f32> {
    x.to_f32(gpu).await.expect("reads back")
}

/// The kind that a golden's name stands for.
fn kind(case: &Case<'_>) -> Glu {
    if let (Some(alpha), Some(limit)) = (case.number("alpha"), case.number("limit")) {
        return Glu::ClampedSwiglu { alpha: alpha as f32, limit: limit as f32 };
    }
    let name = case.name.as_str();
    let kinds = [
        ("swiglu", Activation::Silu),
        ("act_silu", Activation::Silu),
        ("quick_gelu", Activation::QuickGelu),
        ("gelu_tanh", Activation::GeluTanh),
        ("geglu_tanh", Activation::GeluTanh),
        ("gelu_erf", Activation::GeluErf),
        ("geglu_erf", Activation::GeluErf),
        ("relu2", Activation::Relu2),
        ("reglu", Activation::Relu),
        ("relu", Activation::Relu),
        ("sigmoid", Activation::Sigmoid),
        ("softplus", Activation::Softplus),
        ("tanh", Activation::Tanh),
    ];
    let found = kinds.iter().find(|(part, _)| name.contains(part));
    found.unwrap_or_else(|| panic!("{name}: which activation?")).1.into()
}

#[on_device("goldens/ops/glu")]
async fn glu_and_activations_agree_with_the_goldens(gpu: Gpu) {
    let goldens = op("glu");
    for case in goldens.cases() {
        let mut frame = Frame::new(&gpu);
        let kind = kind(&case);
        let y = if case.has("gate_up") {
            let layout = match case.json["layout"].as_str() {
                Some("concat") => GluLayout::Concat,
                Some("interleaved") => GluLayout::Interleaved,
                other => panic!("{}: layout {other:?}", case.name),
            };
            girih_ops::glu_fused(&mut frame, &tensor(&gpu, &case, "gate_up"), layout, kind)
        } else if case.has("up") {
            let (gate, up) = (tensor(&gpu, &case, "gate"), tensor(&gpu, &case, "up"));
            girih_ops::glu(&mut frame, &gate, &up, kind)
        } else {
            let Glu::Gated(act) = kind else { panic!("{}: not a plain activation", case.name) };
            girih_ops::activation(&mut frame, &tensor(&gpu, &case, "gate"), act)
        };
        let y = y.expect("records");
        frame.submit().expect("runs");
        assert_close(&case.name, &values(&gpu, &y).await, &case.f32("y").1, 2e-6, 1e-5);
    }
}

#[on_device("goldens/ops/softmax")]
async fn softmax_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = op("softmax");
    for case in goldens.cases() {
        // Infinities do not go to the GPU: the most negative finite number masks as well.
        let mask = case.has("mask").then(|| {
            let (shape, mask) = case.f32("mask");
            let mask: Vec<f32> = mask.iter().map(|m| m.max(f32::MIN)).collect();
            Tensor::from_f32(&gpu, &mask, &shape).expect("uploads")
        });
        let sink = case.has("sink").then(|| tensor(&gpu, &case, "sink"));
        let opts = Softmax {
            scale: case.number("scale").expect("scale") as f32,
            softcap: case.number("softcap").map(|v| v as f32),
            mask: mask.as_ref(),
            sink: sink.as_ref(),
        };
        let mut frame = Frame::new(&gpu);
        let (p, lse) = girih_ops::softmax(&mut frame, &tensor(&gpu, &case, "x"), &opts).expect("records");
        frame.submit().expect("runs");
        assert_close(&case.name, &values(&gpu, &p).await, &case.f32("p").1, 1e-6, 1e-5);
        if case.has("lse") {
            assert_close(&case.name, &values(&gpu, &lse).await, &case.f32("lse").1, 2e-6, 2e-6);
        }
    }
}

#[on_device]
async fn add_broadcasts_a_row_and_refuses_the_rest(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
    let a = Tensor::from_f32(&gpu, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).expect("uploads");
    let b = Tensor::from_f32(&gpu, &[10.0, 20.0, 30.0], &[3]).expect("uploads");
    let sum = girih_ops::add(&mut frame, &a, &b).expect("records");
    let twice = girih_ops::scale_add(&mut frame, &a, -2.0, &a).expect("records");
    let short = Tensor::from_f32(&gpu, &[0.0; 2], &[2]).expect("uploads");
    let error = girih_ops::add(&mut frame, &a, &short).expect_err("does not fit").to_string();
    assert!(error.contains("b has shape [2], must be [2, 3] or [3]"), "{error}");
    frame.submit().expect("runs");
    assert_eq!(values(&gpu, &sum).await, [11.0, 22.0, 33.0, 14.0, 25.0, 36.0]);
    assert_eq!(values(&gpu, &twice).await, [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]);
}

#[on_device]
async fn embedding_spans_the_parts_of_a_table(gpu: Gpu) {
    let (n, k) = (150u32, 20u32);
    // Bindings of 64 rows: the table has three parts.
    let small = gpu.with_caps(Caps { binding_bytes: 64 * 24 * 4, ..gpu.caps().clone() });
    let data: Vec<f32> = (0..n * k).map(|i| (i % 251) as f32).collect();
    let ids = [0, 149, 63, 64, 127, 128, 150, u32::MAX, 5];
    for weight_type in [WeightType::F32, WeightType::F16, WeightType::Bf16] {
        let table = Matrix::from_f32(&small, &data, n, k, weight_type).expect("uploads");
        let parts = if weight_type == WeightType::F32 { 3 } else { 2 };
        assert_eq!(table.parts.len(), parts);
        let mut frame = Frame::new(&gpu);
        let token_ids = Tensor::from_u32(&gpu, &ids, &[ids.len() as u32]).expect("uploads");
        let y = girih_ops::embedding(&mut frame, &token_ids, &table, 2.0).expect("records");
        let rows = Tensor::from_u32(&gpu, &[3, 0, 99], &[3]).expect("uploads");
        let picked = girih_ops::gather_rows(&mut frame, &y, &rows).expect("records");
        frame.submit().expect("runs");
        let row = |id: u32| (0..k).map(move |c| if id < n { ((id * k + c) % 251) as f32 * 2.0 } else { 0.0 });
        let want: Vec<f32> = ids.iter().flat_map(|&id| row(id)).collect();
        assert_eq!(values(&gpu, &y).await, want, "{weight_type:?}");
        let want: Vec<f32> = [64, 0, n].into_iter().flat_map(row).collect();
        assert_eq!(values(&gpu, &picked).await, want);
    }
}
