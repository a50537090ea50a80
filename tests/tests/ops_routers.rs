//! Routers against goldens and published vectors.

use girih_ops::moe::{
    Choose, Groups, NONE, Normalise, Recurrent, Router, RouterVectors, Score, Weight, choose_tokens,
    decode_routes, random_routes, recurrent_logits, residual_logits, route,
};
use girih_ops::{Frame, Gpu, Matrix, Tensor, WeightType};
use girih_tests::goldens::{Case, assert_close, counted, op};
use girih_tests::on_device;
use girih_tests::routing::{Slots, routes};

/// A family on one input: its router, whether it has a bias, and the slots of three tokens.
type FamilyCase = (&'static str, Router, bool, [Slots; 3]);

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
            "moe++",
            Router { k: 2, weightless: 1, normalise: Normalise::Sum { eps: 0.0 }, ..base },
            false,
            [
                vec![(12, 1.0), (15, 0.0)],
                vec![(8, 0.611382), (5, 0.388618)],
                vec![(1, 0.611382), (6, 0.388618)],
            ],
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

/// A matrix of f32.
fn matrix(gpu: &Gpu, values: &[f32], n: u32) -> Matrix {
    Matrix::from_f32(gpu, values, n, values.len() as u32 / n, WeightType::F32).expect("uploads")
}

/// A softmax whose last expert weighs nothing leaves the others as they are; all weight on it is none at all.
#[on_device]
async fn experts_of_zero_weigh_nothing(gpu: Gpu) {
    let router = Router {
        experts: 3,
        k: 2,
        score: Score::Logit,
        weight: Weight::Softmax,
        weightless: 1,
        ..Router::default()
    };
    let logits = [0.0, -1.0, 1.0];
    let share = 1.0 / (1.0 + 1f32.exp());
    let got = routes(&gpu, &router, &logits, [None; 2]).await;
    assert_routes("softmax of the chosen", &got[0], &[(2, 0.0), (0, share)]);
    let router = Router { weightless: 2, normalise: Normalise::Sum { eps: 0.0 }, ..Router::default() };
    let got = routes(&gpu, &Router { experts: 3, k: 1, ..router }, &logits, [None; 2]).await;
    assert_routes("nothing but zero", &got[0], &[(2, 0.0)]);
}

#[on_device]
async fn logits_carry_those_of_the_layer_before(gpu: Gpu) {
    let w = matrix(&gpu, &[1.0, 2.0, -1.0, 0.5, 0.0, 1.0], 3);
    let carried = matrix(&gpu, &[0.5, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 0.0, -1.0], 3);
    let x = Tensor::from_f32(&gpu, &[2.0, -1.0], &[1, 2]).expect("uploads");
    let mut frame = Frame::new(&gpu);
    let first = residual_logits(&mut frame, &x, &w, None).expect("records"); // [0, -2.5, -1]
    let second = residual_logits(&mut frame, &x, &w, Some((&first, &carried))).expect("records");
    frame.submit().expect("runs");
    let got = second.to_f32(&gpu).await.expect("reads");
    assert_close("residual", &got, &[0.0, -7.5, 0.0], 1e-6, 0.0);
}

#[on_device]
async fn recurrent_routers_carry_their_state(gpu: Gpu) {
    let unit = matrix(&gpu, &[1.0, 0.0, 0.0, 1.0], 2);
    let from_input = matrix(&gpu, &[0.1, 0.2, 0.3, -0.1, -0.2, 0.4, 0.5, 0.1, 0.6, -0.3, 0.2, 0.2], 6);
    let from_state = matrix(&gpu, &[0.2, 0.0, 0.1, 0.1, 0.3, 0.1, 0.0, -0.2, 0.1, -0.4, 0.3, 0.5], 6);
    let vector = |v: &[f32], shape: &[u32]| Tensor::from_f32(&gpu, v, shape).expect("uploads");
    let input_bias = vector(&[0.01, 0.01, -0.02, -0.02, 0.03, 0.03], &[6]);
    let state_bias = vector(&[0.0, 0.0, 0.0, 0.0, 0.04, 0.04], &[6]);
    let router = Recurrent {
        project: &unit,
        from_input: &from_input,
        input_bias: &input_bias,
        from_state: &from_state,
        state_bias: &state_bias,
        logits: &unit,
    };
    let x = vector(&[0.5, -1.0], &[1, 2]);
    let state = vector(&[0.25, 0.75], &[1, 2]);
    let mut frame = Frame::new(&gpu);
    let (logits, next) = recurrent_logits(&mut frame, &x, &router, Some(&state)).expect("records");
    let (_, first) = recurrent_logits(&mut frame, &x, &router, None).expect("records");
    let zero = vector(&[0.0; 2], &[1, 2]);
    let (_, from_zero) = recurrent_logits(&mut frame, &x, &router, Some(&zero)).expect("records");
    let error = recurrent_logits(&mut frame, &x, &Recurrent { from_state: &unit, ..router }, None);
    assert!(error.expect_err("2 rows").to_string().contains("rows of W_h is 2"));
    frame.submit().expect("runs");
    for tensor in [&logits, &next] {
        let got = tensor.to_f32(&gpu).await.expect("reads");
        assert_close("h'", &got, &[0.383663, 0.479932], 2e-6, 0.0);
    }
    let first = first.to_f32(&gpu).await.expect("reads");
    let from_zero = from_zero.to_f32(&gpu).await.expect("reads");
    assert_close("the first layer", &first, &from_zero, 1e-6, 0.0);
}

/// A mixture of recursions is a router of one expert that takes half of the tokens.
#[on_device]
async fn experts_choose_tokens(gpu: Gpu) {
    let none = (NONE, 0.0);
    let chosen = |words: Vec<u32>, e: usize| -> Vec<Slots> {
        decode_routes(&words).chunks(e).map(<[(u32, f32)]>::to_vec).collect()
    };
    let mut frame = Frame::new(&gpu);
    let logits = Tensor::from_f32(&gpu, &[0.2, -0.4, 1.0, 0.1, 0.7, -1.0], &[6, 1]).expect("uploads");
    let recursion = choose_tokens(&mut frame, &logits, Score::Sigmoid, 3, 0.1).expect("records");
    // Softmax of two logits; equal scores, a NaN, a row of nothing else.
    let nan = f32::NAN;
    let logits = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, nan, 5.0, nan, nan, 0.0, 1.0];
    let logits = Tensor::from_f32(&gpu, &logits, &[6, 2]).expect("uploads");
    let two = choose_tokens(&mut frame, &logits, Score::Softmax, 2, 1.0).expect("records");
    let five = choose_tokens(&mut frame, &logits, Score::Logit, 5, 1.0).expect("records");
    choose_tokens(&mut frame, &logits, Score::Logit, 7, 1.0).expect_err("7 of 6 tokens");
    choose_tokens(&mut frame, &logits, Score::Logit, 0, 1.0).expect_err("no tokens");
    frame.submit().expect("runs");
    let got = chosen(recursion.to_u32(&gpu).await.expect("reads"), 1);
    for (token, want) in
        [(0, 0.054983), none, (0, 0.073106), none, (0, 0.066819), none].into_iter().enumerate()
    {
        assert_routes(&format!("token {token}"), &got[token], &[want]);
    }
    let large = 1.0 / (1.0 + (-1f32).exp());
    let got = chosen(two.to_u32(&gpu).await.expect("reads"), 2);
    let want =
        [[(0, 0.5), none], [(0, large), none], [none; 2], [none, (1, 1.0)], [none; 2], [none, (1, large)]];
    for (token, want) in want.iter().enumerate() {
        assert_routes(&format!("two, token {token}"), &got[token], want);
    }
    let got = chosen(five.to_u32(&gpu).await.expect("reads"), 2);
    assert_routes("three numbers and NaN", &got[3], &[none, (1, 5.0)]);
    assert_eq!(got.iter().filter(|of| of[0].0 == 0).count(), 4);
    assert_eq!(got.iter().filter(|of| of[1].0 == 1).count(), 5);
}

/// The draw depends on seed, layer and position alone.
#[on_device]
async fn random_experts_are_those_of_the_position(gpu: Gpu) {
    let draw = |experts, seed, layer, positions: &[u32]| -> Vec<u32> {
        positions.iter().map(|&p| girih_kernels::moe::random::expert(experts, seed, layer, p)).collect()
    };
    let positions: Vec<u32> = (0..70).chain([u32::MAX, 5, 5]).collect();
    let tensor = Tensor::from_u32(&gpu, &positions, &[73]).expect("uploads");
    for (experts, seed, layer) in [(16, 7, 0), (16, 7, 1), (1, 7, 0), (1000, 0, 3)] {
        let mut frame = Frame::new(&gpu);
        let routes = random_routes(&mut frame, &tensor, experts, [seed, layer]).expect("records");
        frame.submit().expect("runs");
        let got = decode_routes(&routes.to_u32(&gpu).await.expect("reads"));
        let want: Vec<(u32, f32)> =
            draw(experts, seed, layer, &positions).into_iter().map(|e| (e, 1.0)).collect();
        assert_eq!(got, want);
    }
    random_routes(&mut Frame::new(&gpu), &tensor, 0, [0, 0]).expect_err("no experts");
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
        (Router { weightless: 9, ..base }, "experts without weight is 9"),
        (
            Router { weight: Weight::Softmax, normalise: Normalise::Sum { eps: 0.0 }, ..base },
            "normalisations of a softmax is 1",
        ),
    ] {
        let error = of(router, &mut frame);
        assert!(error.contains(part), "{error}");
    }
}
