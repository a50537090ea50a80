//! Normalisations against independent results.

use girih_kernels::Gpu;
use girih_ops::{Frame, Tensor};
use girih_tests::goldens::{Case, assert_close, counted, op};
use girih_tests::on_device;

fn tensor(gpu: &Gpu, case: &Case<'_>, name: &str) -> Tensor {
    let (shape, values) = case.f32(name);
    Tensor::from_f32(gpu, &values, &shape).expect("uploads")
}

async fn values(gpu: &Gpu, x: &Tensor) -> Vec<f32> {
    x.to_f32(gpu).await.expect("reads back")
}

#[on_device("goldens/ops/rmsnorm")]
async fn rms_norm_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = op("rmsnorm");
    let mut ran = 0;
    for case in goldens.cases() {
        // Mamba's gated, grouped norm is not an operation yet.
        if case.flag("gated") {
            continue;
        }
        ran += 1;
        let eps = case.number("eps").expect("eps") as f32;
        let x = tensor(&gpu, &case, "x");
        let mut frame = Frame::new(&gpu);
        let weight = case.has("w").then(|| {
            let (shape, mut w) = case.f32("w");
            if case.flag("plus_one") {
                for w in &mut w {
                    *w += 1.0;
                }
            }
            Tensor::from_f32(&gpu, &w, &shape).expect("uploads")
        });
        let want = case.f32("y").1;
        let y = match &weight {
            None => girih_ops::rms_norm_unit(&mut frame, &x, eps).expect("records"),
            Some(w) if case.flag("residual") => {
                let res = tensor(&gpu, &case, "res");
                let (r, y) = girih_ops::add_rms_norm(&mut frame, &x, &res, w, eps).expect("records");
                frame.submit().expect("runs");
                assert_close(&case.name, &values(&gpu, &r).await, &case.f32("r").1, 1e-6, 1e-6);
                y
            }
            Some(w) => {
                // The fused sum behind the norm gives the same, shifted by the residual stream.
                let post = girih_ops::rms_norm_add(&mut frame, &x, w, eps, &x).expect("records");
                let y = girih_ops::rms_norm(&mut frame, &x, w, eps).expect("records");
                frame.submit().expect("runs");
                let shifted: Vec<f32> = case.f32("x").1.iter().zip(&want).map(|(x, y)| x + y).collect();
                let largest = shifted.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                assert_close(
                    &case.name,
                    &values(&gpu, &post).await,
                    &shifted,
                    1e-6 * f64::from(largest),
                    5e-6,
                );
                y
            }
        };
        frame.submit().expect("runs");
        assert_close(&case.name, &values(&gpu, &y).await, &want, 1e-6, 5e-6);
    }
    counted("ops/rmsnorm: covered", ran);
}

#[on_device("goldens/ops/layernorm")]
async fn layer_norm_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = op("layernorm");
    for case in goldens.cases() {
        let eps = case.number("eps").expect("eps") as f32;
        let (x, w) = (tensor(&gpu, &case, "x"), tensor(&gpu, &case, "w"));
        let b = case.has("b").then(|| tensor(&gpu, &case, "b"));
        let mut frame = Frame::new(&gpu);
        let y = girih_ops::layer_norm(&mut frame, &x, &w, b.as_ref(), eps).expect("records");
        frame.submit().expect("runs");
        assert_close(&case.name, &values(&gpu, &y).await, &case.f32("y").1, 5e-6, 1e-5);
    }
}

#[on_device]
async fn shapes_that_do_not_fit_are_typed_errors(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
    let x = Tensor::from_f32(&gpu, &[0.0; 12], &[3, 4]).expect("uploads");
    let w = Tensor::from_f32(&gpu, &[0.0; 3], &[3]).expect("uploads");
    let error = girih_ops::rms_norm(&mut frame, &x, &w, 1e-5).expect_err("weight is too short").to_string();
    assert!(error.contains("weight has shape [3], must be [4]"), "{error}");
    let ids = Tensor::from_u32(&gpu, &[0; 3], &[3]).expect("uploads");
    assert!(girih_ops::rms_norm_unit(&mut frame, &ids, 1e-5).is_err());
    assert!(girih_ops::rms_norm_add(&mut frame, &x, &w, 1e-5, &x).is_err());
    assert!(girih_ops::layer_norm(&mut frame, &x, &w, None, 1e-5).is_err());
}
