//! Mixtures of experts against independent results: routers, groups of slots, whole blocks.

use girih_kernels::matmul::gemv::routed as routed_gemv;
use girih_kernels::matmul::{Act, Epilogue, ExpertShape, XRows};
use girih_kernels::testing::{hash, seeded};
use girih_ops::moe::{
    Choose, Groups, NONE, Normalise, Router, RouterVectors, Score, Weight, combine, decode_routes, group,
    route,
};
use girih_ops::{
    Experts, Format, Frame, GluAct, Gpu, Matrix, MatrixInput, Mixture, Norm, QuantActivation, Tensor,
    WeightFormat, WeightType, mixture,
};
use girih_tests::goldens::{Case, assert_close, counted, op};
use girih_tests::on_device;

/// Experts of a token and their weights.
type Slots = Vec<(u32, f32)>;

/// A family on one input: its router, whether it has a bias, and the slots of three tokens.
type FamilyCase = (&'static str, Router, bool, [Slots; 3]);

/// Routes of logits `[T, E]`, a row for each token.
async fn routes(
    gpu: &Gpu,
    router: &Router,
    logits: &[f32],
    [bias, scale]: [Option<&[f32]>; 2],
) -> Vec<Vec<(u32, f32)>> {
    let e = router.experts;
    let vector = |v: Option<&[f32]>| v.map(|v| Tensor::from_f32(gpu, v, &[e]).expect("uploads"));
    let (bias, scale) = (vector(bias), vector(scale));
    let logits = Tensor::from_f32(gpu, logits, &[logits.len() as u32 / e, e]).expect("uploads");
    let mut frame = Frame::new(gpu);
    let vectors = RouterVectors { bias: bias.as_ref(), expert_scale: scale.as_ref() };
    let routes = route(&mut frame, &logits, router, vectors).expect("records");
    frame.submit().expect("runs");
    let words = routes.to_u32(gpu).await.expect("reads");
    decode_routes(&words).chunks(router.k as usize).map(<[(u32, f32)]>::to_vec).collect()
}

fn assert_routes(what: &str, got: &[(u32, f32)], want: &[(u32, f32)]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (g, w) in got.iter().zip(want) {
        assert_eq!(g.0, w.0, "{what}: {got:?}, want {want:?}");
        assert!((g.1 - w.1).abs() <= 2e-6 * (1.0 + w.1.abs()), "{what}: {got:?}, want {want:?}");
    }
}

/// The router of a golden.
fn router_of(case: &Case<'_>) -> Router {
    let number = |name: &str| case.number(name).unwrap_or(0.0);
    let experts = case.f32("logits").0[1];
    let k = ["top_k", "top_k_total"].into_iter().find_map(|name| case.number(name)).unwrap_or(0.0) as u32;
    let base = Router { experts, k, ..Router::default() };
    let sum = Normalise::Sum { eps: 1e-20 };
    let limited = |two_best, fill_zero| Groups::Limited {
        groups: number("n_group") as u32,
        keep: number("topk_group") as u32,
        two_best,
        fill_zero,
    };
    let scale = case.number("routed_scaling_factor").unwrap_or(1.0) as f32;
    match case.name.as_str() {
        name if name.starts_with("softmax") => {
            Router { normalise: if case.flag("renorm") { sum } else { Normalise::None }, ..base }
        }
        "topk_then_softmax" => Router { score: Score::Logit, weight: Weight::Softmax, ..base },
        "sigmoid_topk" => Router { score: Score::Logit, weight: Weight::Sigmoid, ..base },
        name if name.starts_with("deepseek_v3") => Router {
            score: Score::Sigmoid,
            groups: limited(true, false),
            normalise: if case.flag("norm_topk_prob") { sum } else { Normalise::None },
            scale,
            ..base
        },
        "deepseek_v2_group" => Router { groups: limited(false, true), scale, ..base },
        "ernie" => Router { normalise: Normalise::AtLeast { least: number("norm_min") as f32 }, ..base },
        name if name.starts_with("moge") => {
            Router { groups: Groups::Each { groups: number("num_groups") as u32 }, ..base }
        }
        name => panic!("no router for {name}"),
    }
}

/// Sets of expert and weight: goldens have the largest weight first, routes the largest key.
#[on_device("goldens/ops/routing")]
async fn routers_agree_with_the_goldens(gpu: Gpu) {
    let goldens = op("routing");
    let mut ran = 0;
    for case in goldens.cases() {
        let router = router_of(&case);
        let logits = case.f32("logits").1;
        let optional = |name: &str| case.has(name).then(|| case.f32(name).1);
        let (bias, scale) = (optional("bias"), optional("router_scale"));
        let mut kinds = vec![("weights", router, None)];
        if case.has("weights_renorm") {
            let normalise = Normalise::Sum { eps: 0.0 };
            kinds.push(("weights_renorm", Router { normalise, ..router }, None));
            kinds.push(("weights_scaled", router, scale.as_deref()));
        }
        for (tensor, router, scale) in kinds {
            let got = routes(&gpu, &router, &logits, [bias.as_deref(), scale]).await;
            let want: Vec<(u32, f32)> =
                case.ints("indices").iter().map(|&e| e as u32).zip(case.f32(tensor).1).collect();
            for (token, (mut got, want)) in got.into_iter().zip(want.chunks(router.k as usize)).enumerate() {
                let mut want = want.to_vec();
                got.sort_by_key(|r| r.0);
                want.sort_by_key(|r| r.0);
                assert_routes(&format!("{} {tensor}, token {token}", case.name), &got, &want);
            }
        }
        ran += 1;
    }
    counted("ops/routing", ran);
}

/// Logits of three tokens over 16 experts: `l[t, e] = q² / 64 - 2`, `q = (A[t] e + B[t]) mod 16`.
fn vector_logits() -> Vec<f32> {
    let row = |(a, b): (u32, u32)| (0..16).map(move |e| ((a * e + b) % 16).pow(2) as f32 / 64.0 - 2.0);
    [(5, 3), (11, 7), (3, 12)].into_iter().flat_map(row).collect()
}

/// Families of routers on one input, each with the experts and weights of three tokens.
#[on_device]
async fn families_route_as_published(gpu: Gpu) {
    let base = Router { experts: 16, k: 4, ..Router::default() };
    let sum = Normalise::Sum { eps: 1e-20 };
    let sigmoid = Router { score: Score::Sigmoid, ..base };
    let logit = Router { score: Score::Logit, ..base };
    let limited = |two_best, fill_zero| Groups::Limited { groups: 4, keep: 2, two_best, fill_zero };
    let deepseek = Router { groups: limited(true, false), normalise: sum, scale: 2.5, ..sigmoid };
    let four = |w: [f32; 4], ids: [[u32; 4]; 3]| ids.map(|ids| ids.into_iter().zip(w).collect::<Vec<_>>());
    let each = |rows: [([u32; 4], [f32; 4]); 3]| rows.map(|(ids, w)| ids.into_iter().zip(w).collect());
    let plain = [[12, 15, 2, 5], [8, 5, 2, 15], [1, 6, 11, 0]];
    let cases: Vec<FamilyCase> = vec![
        ("olmoe", base, false, four([0.314117, 0.199665, 0.130944, 0.088601], plain)),
        (
            "mixtral",
            Router { normalise: Normalise::Sum { eps: 0.0 }, ..base },
            false,
            four([0.428346, 0.272273, 0.178561, 0.120820], plain),
        ),
        (
            "gpt_oss",
            Router { weight: Weight::Softmax, ..logit },
            false,
            four([0.428346, 0.272273, 0.178561, 0.120820], plain),
        ),
        (
            "deepseek_v2",
            Router { groups: limited(false, true), ..base },
            false,
            each([
                ([12, 15, 2, 14], [0.314117, 0.199665, 0.130944, 0.033108]),
                ([8, 5, 9, 6], [0.314117, 0.199665, 0.044551, 0.033108]),
                ([1, 6, 0, 5], [0.314117, 0.199665, 0.088601, 0.061853]),
            ]),
        ),
        (
            "deepseek_v3",
            deepseek,
            true,
            each([
                ([12, 2, 15, 14], [0.806286, 0.644026, 0.730834, 0.318854]),
                ([8, 12, 9, 15], [0.912172, 0.525884, 0.436494, 0.625449]),
                ([1, 6, 0, 5], [0.788990, 0.715156, 0.540987, 0.454867]),
            ]),
        ),
        (
            "deepseek_v3 without bias",
            deepseek,
            false,
            each([
                ([12, 15, 2, 14], [0.806286, 0.730834, 0.644026, 0.318854]),
                ([8, 5, 9, 6], [0.899150, 0.815008, 0.430263, 0.355578]),
                ([1, 6, 0, 5], [0.788990, 0.715156, 0.540987, 0.454867]),
            ]),
        ),
        (
            "glm4_moe",
            Router { normalise: sum, ..sigmoid },
            true,
            each([
                ([12, 2, 15, 5], [0.294912, 0.235562, 0.267314, 0.202212]),
                ([2, 8, 5, 12], [0.243397, 0.304721, 0.276205, 0.175677]),
                ([1, 6, 11, 0], [0.294912, 0.267314, 0.235562, 0.202212]),
            ]),
        ),
        (
            "pangu_pro_moe",
            Router { groups: Groups::Each { groups: 4 }, ..base },
            false,
            each([
                ([2, 5, 8, 12], [0.130944, 0.088601, 0.061853, 0.314117]),
                ([2, 5, 8, 15], [0.130944, 0.199665, 0.314117, 0.088601]),
                ([1, 6, 11, 15], [0.314117, 0.199665, 0.130944, 0.033108]),
            ]),
        ),
        (
            "ernie4_5_moe",
            Router { normalise: Normalise::AtLeast { least: 1e-12 }, ..base },
            true,
            each([
                ([12, 2, 7, 14], [0.635147, 0.264769, 0.033140, 0.066944]),
                ([2, 8, 12, 7], [0.252346, 0.605346, 0.119200, 0.023108]),
                ([1, 6, 2, 7], [0.589108, 0.374460, 0.018643, 0.017790]),
            ]),
        ),
        (
            "llama4",
            Router { k: 1, weight: Weight::Sigmoid, ..logit },
            false,
            [12, 8, 1].map(|e| vec![(e, 0.819893)]),
        ),
        (
            "phimoe",
            Router { k: 2, choose: Choose::SparseMixer { eps: 0.01 }, ..logit },
            false,
            [[12, 15], [8, 5], [1, 6]].map(|ids| ids.map(|e| (e, 1.0)).to_vec()),
        ),
        (
            "llada_moe",
            Router { bias_in_weight: true, ..base },
            true,
            each([
                ([12, 2, 7, 14], [0.439117, 0.255944, 0.141390, 0.095608]),
                ([2, 8, 12, 7], [0.255944, 0.251617, 0.186853, 0.136991]),
                ([1, 6, 2, 7], [0.314117, 0.199665, 0.134941, 0.134486]),
            ]),
        ),
        (
            "longcat",
            Router { scale: 6.0, ..base },
            true,
            each([
                ([12, 2, 7, 14], [1.884705, 0.785662, 0.098337, 0.198646]),
                ([2, 8, 12, 7], [0.785662, 1.884705, 0.371120, 0.071945]),
                ([1, 6, 2, 7], [1.884705, 1.197991, 0.059644, 0.056913]),
            ]),
        ),
        (
            "deepseek_v4",
            Router { score: Score::SqrtSoftplus, normalise: sum, scale: 1.5, ..base },
            true,
            each([
                ([12, 2, 15, 5], [0.444782, 0.350403, 0.396077, 0.308738]),
                ([8, 2, 5, 12], [0.456023, 0.359259, 0.406087, 0.278631]),
                ([1, 6, 11, 0], [0.444782, 0.396077, 0.350403, 0.308738]),
            ]),
        ),
        (
            "kolibri",
            Router { weight: Weight::Sigmoid, normalise: sum, ..logit },
            true,
            four([0.294912, 0.267314, 0.235562, 0.202212], plain),
        ),
    ];
    let logits = vector_logits();
    let bias: Vec<f32> = (0..16).map(|e| ((7 * e % 5) as f32 - 2.0) / 16.0).collect();
    for (name, router, has_bias, want) in cases {
        let bias = has_bias.then_some(bias.as_slice());
        let got = routes(&gpu, &router, &logits, [bias, None]).await;
        for (token, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_routes(&format!("{name}, token {token}"), got, want);
        }
    }
}

/// Excluded groups as zeros or as minus infinity, with keys below zero (a trap of old forks).
#[on_device]
async fn what_excluded_groups_are_filled_with_decides(gpu: Gpu) {
    let logits = [2.0, 1.0, -1.0, -2.0, 0.0, -0.5, -1.5, -3.0];
    let bias = [0.0, 0.0, -0.9, -0.9, 0.0, 0.0, 0.0, 0.0];
    let zero: [(u32, f32); 4] = [(0, 0.353820), (1, 0.293669), (4, 0.200852), (5, 0.151660)];
    let infinity: [(u32, f32); 4] = [(0, 0.440398), (1, 0.365529), (2, 0.134471), (3, 0.059601)];
    for (fill_zero, want) in [(true, zero), (false, infinity)] {
        let groups = Groups::Limited { groups: 2, keep: 1, two_best: true, fill_zero };
        let (score, normalise) = (Score::Sigmoid, Normalise::Sum { eps: 0.0 });
        let router = Router { experts: 8, k: 4, score, groups, normalise, ..Router::default() };
        let got = routes(&gpu, &router, &logits, [Some(&bias), None]).await;
        assert_routes(&format!("fill zero: {fill_zero}"), &got[0], &want);
    }
}

#[on_device]
async fn the_sparse_mixer_weighs_near_ties(gpu: Gpu) {
    let router = Router {
        experts: 4,
        k: 2,
        score: Score::Logit,
        choose: Choose::SparseMixer { eps: 0.01 },
        ..Router::default()
    };
    for (logits, want) in [
        ([2.0, 1.99, 1.0, -3.0], [0.502500, 1.0]),
        ([2.0, 1.99, 1.97, -3.0], [0.337781, 0.505000]),
        ([-1.0, -1.005, -1.5, -4.0], [0.501250, 1.0]),
        ([0.0, 0.0, -1.0, -2.0], [0.5, 1.0]),
        ([2.0, f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NEG_INFINITY], [1.0, 0.0]),
    ] {
        let got = routes(&gpu, &router, &logits, [None; 2]).await;
        assert_routes(&format!("{logits:?}"), &got[0], &[(0, want[0]), (1, want[1])]);
    }
}

#[on_device]
async fn ties_and_what_is_no_number_have_one_result(gpu: Gpu) {
    let router =
        |experts, k| Router { experts, k, normalise: Normalise::Sum { eps: 0.0 }, ..Router::default() };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let third = 1.0 / 3.0;
    let none = (NONE, 0.0);
    let slots = |of: &[(u32, f32)]| -> Slots { of.to_vec() };
    let cases: [(Router, &[f32], Slots); 7] = [
        (
            router(8, 3),
            &[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 0.0, 0.0],
            slots(&[(4, 0.4223188), (5, 0.4223188), (0, 0.1553624)]),
        ),
        (router(4, 3), &[0.0, -0.0, 0.0, -0.0], slots(&[(0, third), (1, third), (2, third)])),
        (router(4, 2), &[nan, 1.0, nan, 1.0], slots(&[(1, 0.5), (3, 0.5)])),
        (router(4, 3), &[nan, 1.0, nan, nan], slots(&[(1, 1.0), none, none])),
        (router(3, 2), &[nan, nan, nan], slots(&[none, none])),
        (router(4, 3), &[-inf, 2.0, -inf, -inf], slots(&[(1, 1.0), (0, 0.0), (2, 0.0)])),
        (router(4, 1), &[0.5, inf, 1.0, -inf], slots(&[(1, 1.0)])),
    ];
    for (router, logits, want) in cases {
        let got = routes(&gpu, &router, logits, [None; 2]).await;
        assert_routes(&format!("{logits:?}"), &got[0], &want);
    }
    // Not normalised: a row of nothing but minus infinity weighs nothing.
    let plain = Router { normalise: Normalise::None, ..router(3, 1) };
    let got = routes(&gpu, &plain, &[-inf; 3], [None; 2]).await;
    assert_routes("all minus infinity", &got[0], &[(0, 0.0)]);
}

#[on_device]
async fn slots_come_in_the_order_of_experts(gpu: Gpu) {
    let ids = [3u32, 0, 2, 0, 1, 3];
    let words: Vec<u32> = ids.iter().flat_map(|&e| [e, 0]).collect();
    let routes = Tensor::from_u32(&gpu, &words, &[3, 2, 2]).expect("uploads");
    let mut frame = Frame::new(&gpu);
    let groups = group(&mut frame, &routes, 4, 8, [5, 7]).expect("records");
    frame.submit().expect("runs");
    let words = groups.groups.to_u32(&gpu).await.expect("reads");
    let (tiles, order) = words.split_at(4 * groups.max_tiles as usize);
    assert_eq!(order, [1, 3, 4, 2, 0, 5]);
    assert_eq!(tiles[..16], [0, 0, 2, 0, 1, 2, 1, 0, 2, 3, 1, 0, 3, 4, 2, 0]);
    assert!(tiles[16..].iter().all(|&word| word == 0));
    let counts: Vec<[u32; 3]> = groups.grids.iter().map(girih_ops::kernels::Grid::most).collect();
    assert_eq!(counts, [[5, groups.max_tiles, 1], [7, groups.max_tiles, 1]]);
}

/// Weights of experts, in f32 on the host too.
struct Block {
    dims: [u32; 3],
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

impl Block {
    /// E experts of width I for D channels.
    fn seeded([e, i, d]: [u32; 3]) -> Self {
        let values = |n: u32, k: u32, seed| -> Vec<f32> {
            let scale = 1.0 / (k as f32).sqrt();
            seeded((n * k) as usize, seed).into_iter().map(|v| v.clamp(-2.0, 2.0) * scale).collect()
        };
        Self {
            dims: [e, i, d],
            gate: values(e * i, d, 1),
            up: values(e * i, d, 2),
            down: values(e * d, i, 3),
        }
    }

    /// Rows of gate and up alternately.
    fn gate_up(&self) -> Vec<f32> {
        let d = self.dims[2] as usize;
        let rows = self.gate.chunks_exact(d).zip(self.up.chunks_exact(d));
        rows.flat_map(|(gate, up)| [gate, up].concat()).collect()
    }

    fn upload(&self, gpu: &Gpu, format: impl Into<WeightFormat>) -> [Matrix; 2] {
        let [e, i, d] = self.dims;
        let format = format.into();
        let [gate_up, down] =
            [(self.gate_up(), 2 * i, d), (self.down.clone(), d, i)].map(|(values, n, k)| {
                let whole = Matrix::from_f32(gpu, &values, e * n, k, format).expect("uploads");
                Matrix { experts: e, ..whole }
            });
        [gate_up, down]
    }

    /// The definition, in f64.
    fn apply(&self, x: &[f32], routes: &[Vec<(u32, f32)>], act: fn(f64, f64) -> f64) -> Vec<f32> {
        let [_, i, d] = self.dims.map(|n| n as usize);
        let dot = |w: &[f32], x: &[f64]| w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum::<f64>();
        let mut y = Vec::new();
        for (x, routes) in x.chunks_exact(d).zip(routes) {
            let x: Vec<f64> = x.iter().map(|&v| v.into()).collect();
            let mut sum = vec![0.0; d];
            for &(expert, weight) in routes.iter().filter(|r| r.0 != NONE) {
                let row = |r: usize| (expert as usize * i + r) * d..(expert as usize * i + r + 1) * d;
                let h: Vec<f64> =
                    (0..i).map(|r| act(dot(&self.gate[row(r)], &x), dot(&self.up[row(r)], &x))).collect();
                for (c, sum) in sum.iter_mut().enumerate() {
                    let down = (expert as usize * d + c) * i;
                    *sum += f64::from(weight) * dot(&self.down[down..down + i], &h);
                }
            }
            y.extend(sum.into_iter().map(|v| v as f32));
        }
        y
    }
}

fn swiglu(gate: f64, up: f64) -> f64 {
    gate / (1.0 + (-gate).exp()) * up
}

fn upload_routes(gpu: &Gpu, routes: &[Vec<(u32, f32)>]) -> Tensor {
    let words: Vec<u32> = routes.iter().flatten().flat_map(|r| [r.0, r.1.to_bits()]).collect();
    Tensor::from_u32(gpu, &words, &[routes.len() as u32, routes[0].len() as u32, 2]).expect("uploads")
}

async fn run(gpu: &Gpu, x: &[f32], routes: &Tensor, experts: &Experts<'_>, opts: &Mixture<'_>) -> Vec<f32> {
    let tokens = routes.shape()[0];
    let x = Tensor::from_f32(gpu, x, &[tokens, x.len() as u32 / tokens]).expect("uploads");
    let mut frame = Frame::new(gpu);
    let y = mixture(&mut frame, &x, routes, experts, opts).expect("records");
    frame.submit().expect("runs");
    y.to_f32(gpu).await.expect("reads")
}

#[on_device("goldens/ops/moe_block")]
async fn blocks_agree_with_the_goldens(gpu: Gpu) {
    let goldens = op("moe_block");
    let mut ran = 0;
    for case in goldens.cases() {
        let (shape, gate) = case.f32("w_gate");
        let d = shape[2];
        let block =
            Block { dims: [shape[0], shape[1], d], gate, up: case.f32("w_up").1, down: case.f32("w_down").1 };
        let k = case.f32("weights").0[1] as usize;
        let of: Vec<(u32, f32)> =
            case.ints("indices").iter().map(|&e| e as u32).zip(case.f32("weights").1).collect();
        let routes: Vec<Vec<(u32, f32)>> = of.chunks(k).map(<[(u32, f32)]>::to_vec).collect();
        let [gate_up, down] = block.upload(&gpu, WeightType::F32);
        let experts = Experts {
            gate_up: &gate_up,
            gate_up_bias: None,
            down: &down,
            down_bias: None,
            act: GluAct::Silu,
        };
        let x = case.f32("x").1;
        let mut y = run(&gpu, &x, &upload_routes(&gpu, &routes), &experts, &Mixture::default()).await;
        // A network that all tokens share is a mixture of one expert; its gate is that one's router.
        if case.has("s_gate") {
            let shape = case.f32("s_gate").0;
            let [gate, up, down] = ["s_gate", "s_up", "s_down"].map(|name| case.f32(name).1);
            let shared = Block { dims: [1, shape[0], shape[1]], gate, up, down };
            let logit = |x: &[f32]| x.iter().zip(&case.f32("shared_gate").1).map(|(x, w)| x * w).sum();
            let logits: Vec<f32> = x.chunks_exact(d as usize).map(logit).collect();
            let router = Router { experts: 1, k: 1, score: Score::Sigmoid, ..Router::default() };
            let routes = self::routes(&gpu, &router, &logits, [None; 2]).await;
            let [gate_up, down] = shared.upload(&gpu, WeightType::F32);
            let experts = Experts { gate_up: &gate_up, down: &down, ..experts };
            let more = run(&gpu, &x, &upload_routes(&gpu, &routes), &experts, &Mixture::default()).await;
            y.iter_mut().zip(more).for_each(|(y, more)| *y += more);
        }
        assert_close(&case.name, &y, &case.f32("y").1, 2e-5, 2e-5);
        ran += 1;
    }
    counted("ops/moe_block", ran);
}

/// A product of each token with the matrix of its expert.
#[on_device("goldens/ops/matmul")]
async fn experts_multiply_as_the_golden(gpu: Gpu) {
    let goldens = op("matmul");
    let mut ran = 0;
    for case in goldens.cases().into_iter().filter(|case| case.name == "grouped_experts") {
        let (shape, w) = case.f32("w");
        let (x_shape, x) = case.f32("x");
        let [e, n, k] = [shape[0], shape[1], shape[2]];
        let routes: Vec<Vec<(u32, f32)>> =
            case.ints("expert_ids").iter().map(|&e| vec![(e as u32, 1.0)]).collect();
        let matrix = Matrix::from_f32(&gpu, &w, e * n, k, WeightType::F32).expect("uploads");
        let routes = upload_routes(&gpu, &routes);
        let x = Tensor::from_f32(&gpu, &x, &x_shape).expect("uploads");
        let mut frame = Frame::new(&gpu);
        let y = frame.alloc(&[x_shape[0], n], girih_ops::DType::F32).expect("allocates");
        let parts: Vec<girih_kernels::matmul::Part<'_>> = matrix
            .parts
            .iter()
            .map(|p| girih_kernels::matmul::Part {
                buffer: &p.buffer,
                scales: p.scales.as_ref(),
                format: p.format,
                row0: p.row0,
                rows: p.rows,
            })
            .collect();
        let args = routed_gemv::Args {
            x: x.buffer(),
            parts: &parts,
            norm: girih_kernels::fused::Norm::None,
            epilogue: Epilogue { bias: None, alpha: 1.0, act: Act::Identity, residual: None },
            routes: routes.buffer(),
            y: y.buffer(),
        };
        let shape = ExpertShape { tokens: x_shape[0], slots: 1, experts: e, n, k };
        routed_gemv::record(frame.recorder(), args, shape, XRows::Tokens).expect("records");
        frame.submit().expect("runs");
        let got = y.to_f32(&gpu).await.expect("reads");
        assert_close(&case.name, &got, &case.f32("y").1, 2e-5, 2e-5);
        ran += 1;
    }
    assert_eq!(ran, 1);
}

/// Slots of tokens, the last one without an expert; expert 1 is never chosen.
fn seeded_routes([tokens, k, experts]: [u32; 3]) -> Vec<Vec<(u32, f32)>> {
    let of = |token: u32| {
        let mut ids: Vec<u32> = (0..experts).filter(|&e| e != 1 || experts <= k).collect();
        ids.sort_by_key(|&e| hash(token * 1000 + e));
        let weight = |j: u32| 0.1 + (hash(token + 7 * j) % 32) as f32 / 64.0;
        (0..k).map(|j| (ids[j as usize], weight(j))).collect::<Vec<_>>()
    };
    let mut routes: Vec<Vec<(u32, f32)>> = (0..tokens).map(of).collect();
    if let Some(last) = routes.last_mut().and_then(|r| r.last_mut()).filter(|_| tokens > 1) {
        *last = (NONE, 0.0);
    }
    routes
}

/// Few and many tokens, odd sizes, experts that are all chosen or one alone; weights of experts that nobody chose are NaN, so
/// that whoever reads them is noticed; the same bits every time.
#[on_device]
async fn mixtures_agree_with_their_definition(gpu: Gpu) {
    for (tokens, k, experts, i, d) in
        [(1, 2, 8, 45, 70), (3, 1, 1, 16, 24), (37, 4, 16, 45, 70), (50, 3, 3, 32, 64), (300, 2, 5, 24, 40)]
    {
        let mut block = Block::seeded([experts, i, d]);
        let routes = seeded_routes([tokens, k, experts]);
        let x = seeded((tokens * d) as usize, 9);
        let want = block.apply(&x, &routes, swiglu);
        if experts > k {
            let (gate, down) = ((i * d) as usize, (d * i) as usize);
            block.gate[gate..2 * gate].fill(f32::NAN);
            block.down[down..2 * down].fill(f32::NAN);
        }
        let [gate_up, down] = block.upload(&gpu, WeightType::F32);
        let experts = Experts {
            gate_up: &gate_up,
            gate_up_bias: None,
            down: &down,
            down_bias: None,
            act: GluAct::Silu,
        };
        let routes = upload_routes(&gpu, &routes);
        let residual = seeded((tokens * d) as usize, 11);
        let tensor = Tensor::from_f32(&gpu, &residual, &[tokens, d]).expect("uploads");
        let opts = Mixture { alpha: 0.5, residual: Some(&tensor), ..Mixture::default() };
        let got = run(&gpu, &x, &routes, &experts, &opts).await;
        let want: Vec<f32> = want.iter().zip(&residual).map(|(y, r)| r + 0.5 * y).collect();
        let what = format!("{tokens} tokens, {k} of {} experts", gate_up.experts);
        assert_close(&what, &got, &want, 1e-4, 1e-4);
        let again = run(&gpu, &x, &routes, &experts, &opts).await;
        assert!(got.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{what}: other bits");
    }
}

/// Every way in which weights and activations are stored; biases; a norm in front; gpt-oss's unit.
#[on_device]
async fn mixtures_of_every_format(gpu: Gpu) {
    let act = |gate: f64, up: f64| {
        let top = gate.min(7.0);
        (1.0 + up.clamp(-7.0, 7.0)) * top / (1.0 + (-1.702 * top).exp())
    };
    let oai = GluAct::SwiGluOai { alpha: 1.702, cap: 7.0 };
    let int8 = MatrixInput { activation: QuantActivation::INT8, ..MatrixInput::default() };
    for tokens in [1u32, 2, 40] {
        for (format, input, tolerance) in [
            (WeightFormat::F16, MatrixInput::default(), 2e-3),
            (WeightFormat::Bf16, MatrixInput::default(), 2e-2),
            (Format::Q8_0.into(), MatrixInput::default(), 2e-2),
            (Format::Q4_0.into(), MatrixInput::default(), 0.4),
            (Format::Q8_0.into(), int8.clone(), 4e-2),
        ] {
            let block = Block::seeded([6, 32, 64]);
            let routes = seeded_routes([tokens, 2, 6]);
            let x = seeded((tokens * 64) as usize, 9);
            let norm: Vec<f32> = seeded(64, 5).iter().map(|v| 1.0 + 0.1 * v).collect();
            let normalised: Vec<f32> = x
                .chunks_exact(64)
                .flat_map(|row| {
                    let scale = (row.iter().map(|v| v * v).sum::<f32>() / 64.0 + 1e-5).sqrt();
                    row.iter().zip(&norm).map(move |(v, w)| v / scale * w).collect::<Vec<_>>()
                })
                .collect();
            let want = block.apply(&normalised, &routes, act);
            let [gate_up, down] = block.upload(&gpu, format);
            let [gate_up, down] = [gate_up, down].map(|m| m.with_input(input.clone()));
            let bias = |len: u32| Tensor::from_f32(&gpu, &vec![0.0; len as usize], &[len]).expect("uploads");
            let (gate_up_bias, down_bias) = (bias(6 * 64), bias(6 * 64));
            let weight = Tensor::from_f32(&gpu, &norm, &[64]).expect("uploads");
            let experts = Experts {
                gate_up: &gate_up,
                gate_up_bias: Some(&gate_up_bias),
                down: &down,
                down_bias: Some(&down_bias),
                act: oai,
            };
            let opts = Mixture { norm: Some(Norm::Rms { weight: &weight, eps: 1e-5 }), ..Mixture::default() };
            let got = run(&gpu, &x, &upload_routes(&gpu, &routes), &experts, &opts).await;
            let what = format!("{format}, {:?}, {tokens} tokens", input.activation);
            let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert_close(&what, &got, &want, f64::from(largest) * tolerance, 0.0);
        }
    }
}

/// Biases of each expert count with the weight of the expert.
#[on_device]
async fn biases_are_those_of_the_expert(gpu: Gpu) {
    let [e, i, d] = [3u32, 8, 16];
    let block = Block {
        dims: [e, i, d],
        gate: vec![0.0; (e * i * d) as usize],
        up: vec![0.0; (e * i * d) as usize],
        down: vec![1.0; (e * d * i) as usize],
    };
    let [gate_up, down] = block.upload(&gpu, WeightType::F32);
    // h = relu(gate bias) · up bias = (1 + expert) · 2 in all channels.
    let into: Vec<f32> =
        (0..e * 2 * i).map(|r| if r % 2 == 0 { 1.0 + (r / (2 * i)) as f32 } else { 2.0 }).collect();
    let out: Vec<f32> = (0..e * d).map(|r| 100.0 * (1 + r / d) as f32).collect();
    let vector = |v: &[f32]| Tensor::from_f32(&gpu, v, &[v.len() as u32]).expect("uploads");
    let (into, out) = (vector(&into), vector(&out));
    let experts = Experts {
        gate_up: &gate_up,
        gate_up_bias: Some(&into),
        down: &down,
        down_bias: Some(&out),
        act: GluAct::Relu,
    };
    for tokens in [1usize, 40] {
        let routes: Vec<Vec<(u32, f32)>> = (0..tokens).map(|_| vec![(2, 0.5), (0, 0.25)]).collect();
        let got =
            run(&gpu, &vec![1.0; tokens * 16], &upload_routes(&gpu, &routes), &experts, &Mixture::default())
                .await;
        // 0.5 (8 · 3 · 2 + 300) + 0.25 (8 · 1 · 2 + 100)
        assert_close(&format!("{tokens} tokens"), &got, &vec![203.0; tokens * 16], 1e-3, 0.0);
    }
}

#[on_device]
async fn what_does_not_fit_is_a_typed_error(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
    let logits = frame.alloc(&[2, 8], girih_ops::DType::F32).expect("allocates");
    let of = |router: Router, frame: &mut Frame| {
        route(frame, &logits, &router, RouterVectors::default()).expect_err("must fail").to_string()
    };
    let base = Router { experts: 8, k: 2, ..Router::default() };
    for (router, part) in [
        (Router { experts: 9, ..base }, "logits"),
        (Router { k: 9, ..base }, "experts of a token is 9"),
        (Router { k: 0, ..base }, "experts of a token is 0"),
        (Router { groups: Groups::Each { groups: 3 }, ..base }, "groups of experts is 3"),
        (Router { k: 3, groups: Groups::Each { groups: 2 }, ..base }, "experts of a token is 3"),
        (
            Router {
                groups: Groups::Limited { groups: 4, keep: 5, two_best: true, fill_zero: false },
                ..base
            },
            "groups that are kept is 5",
        ),
        (
            Router {
                groups: Groups::Limited { groups: 8, keep: 5, two_best: true, fill_zero: false },
                ..base
            },
            "experts of a group is 1",
        ),
        (Router { choose: Choose::SparseMixer { eps: 0.01 }, ..base }, "sparse mixer"),
        (
            Router { weight: Weight::Softmax, normalise: Normalise::Sum { eps: 0.0 }, ..base },
            "normalisations of a softmax is 1",
        ),
    ] {
        let error = of(router, &mut frame);
        assert!(error.contains(part), "{error}");
    }
    let block = Block::seeded([2, 8, 16]);
    let [gate_up, down] = block.upload(&gpu, WeightType::F32);
    let routes = upload_routes(&gpu, &[vec![(0, 1.0)]]);
    let x = Tensor::from_f32(&gpu, &[0.0; 24], &[1, 24]).expect("uploads");
    let experts =
        Experts { gate_up: &gate_up, gate_up_bias: None, down: &down, down_bias: None, act: GluAct::Silu };
    let error = mixture(&mut frame, &x, &routes, &experts, &Mixture::default()).expect_err("24 channels");
    assert!(error.to_string().contains("columns of gate and up"), "{error}");
    let other = Matrix { experts: 1, ..down.clone() };
    let x = Tensor::from_f32(&gpu, &[0.0; 16], &[1, 16]).expect("uploads");
    let error = mixture(&mut frame, &x, &routes, &Experts { down: &other, ..experts }, &Mixture::default());
    assert!(error.expect_err("one expert").to_string().contains("experts of down"));
    let o = frame.alloc(&[3, 16], girih_ops::DType::F32).expect("allocates");
    combine(&mut frame, &o, &routes, 1.0, None).expect_err("three slots of one");
}
