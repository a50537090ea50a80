//! Routes to experts, up to the device and back.

use girih_ops::moe::{Router, RouterVectors, decode_routes, route};
use girih_ops::{Frame, Gpu, Tensor};

/// Experts of a token and their weights.
pub type Slots = Vec<(u32, f32)>;

/// Routes of logits `[T, E]`, a row for each token.
pub async fn routes(
    gpu: &Gpu,
    router: &Router,
    logits: &[f32],
    [bias, scale]: [Option<&[f32]>; 2],
) -> Vec<Slots> {
    let e = router.experts;
    let vector = |v: Option<&[f32]>| v.map(|v| Tensor::from_f32(gpu, v, &[e]).expect("uploads"));
    let (bias, scale) = (vector(bias), vector(scale));
    let logits = Tensor::from_f32(gpu, logits, &[logits.len() as u32 / e, e]).expect("uploads");
    let mut frame = Frame::new(gpu);
    let vectors = RouterVectors { bias: bias.as_ref(), expert_scale: scale.as_ref(), table: None };
    let routes = route(&mut frame, &logits, router, vectors).expect("records");
    frame.submit().expect("runs");
    let words = routes.to_u32(gpu).await.expect("reads");
    decode_routes(&words).chunks(router.k as usize).map(<[(u32, f32)]>::to_vec).collect()
}

/// Routes u32 `[T, K, 2]` of tokens with as many slots each.
pub fn upload_routes(gpu: &Gpu, routes: &[Slots]) -> Tensor {
    let words: Vec<u32> = routes.iter().flatten().flat_map(|r| [r.0, r.1.to_bits()]).collect();
    Tensor::from_u32(gpu, &words, &[routes.len() as u32, routes[0].len() as u32, 2]).expect("uploads")
}
