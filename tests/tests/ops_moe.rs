//! Mixtures of experts against independent results: groups of slots, whole blocks, experts without weights.

use girih_kernels::matmul::gemv::routed as routed_gemv;
use girih_kernels::matmul::{Act, Epilogue, ExpertShape, XRows};
use girih_kernels::testing::{hash, seeded};
use girih_ops::moe::{
    NONE, Null, NullExperts, Router, RouterVectors, Score, combine, group, null_experts, route,
};
use girih_ops::{
    Experts, Format, Frame, GluAct, Gpu, Matrix, MatrixInput, Mixture, Norm, QuantActivation, Tensor,
    WeightFormat, WeightType, mixture,
};
use girih_tests::goldens::{assert_close, counted, op};
use girih_tests::on_device;
use girih_tests::routing::{routes, upload_routes};

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

/// W_c `[1, 2, 3]`, v `[1, 3]` of a published constant expert, and what it makes of x = [1, -2, 0.5].
const MIX: [f32; 6] = [0.2, -0.1, 0.4, -0.3, 0.5, 0.1];
const CONSTANT: [f32; 3] = [0.5, -0.5, 1.0];
const OF_CONSTANT: [f32; 3] = [0.932064, -1.796191, 0.567936];

/// Routes of a token, and what comes of it.
type Case = (Vec<(u32, f32)>, [f32; 3]);

#[on_device]
async fn experts_without_weights_give_what_was_published(gpu: Gpu) {
    let [mix, constant] = [(&MIX[..], &[1u32, 2, 3][..]), (&CONSTANT[..], &[1, 3])]
        .map(|(values, shape)| Tensor::from_f32(&gpu, values, shape).expect("uploads"));
    let kinds = NullExperts { constant: 1, copy: 1 };
    let null = Null { kinds, constant: Some([&mix, &constant]) };
    let x = [1.0, -2.0, 0.5];
    // Experts 0 and 1 have weights, 2 is the constant one, 3 copies, 4 is of zero.
    let cases: [Case; 5] = [
        (vec![(2, 1.0), (4, 0.0)], OF_CONSTANT),
        (vec![(3, 1.0), (4, 7.0)], x),
        (vec![(0, 0.5), (NONE, 0.0)], [0.0; 3]),
        (vec![(3, 0.25), (3, 0.5)], x.map(|v| 0.75 * v)),
        (vec![(2, 2.0), (3, -1.0)], [0, 1, 2].map(|i| 2.0 * OF_CONSTANT[i] - x[i])),
    ];
    let rows: Vec<f32> = x.into_iter().cycle().take(3 * cases.len()).collect();
    let x = Tensor::from_f32(&gpu, &rows, &[cases.len() as u32, 3]).expect("uploads");
    let routes = upload_routes(&gpu, &cases.each_ref().map(|c| c.0.clone()));
    let mut frame = Frame::new(&gpu);
    let y = null_experts(&mut frame, &x, &routes, 2, &null, 1.0, None).expect("records");
    frame.submit().expect("runs");
    let got = y.to_f32(&gpu).await.expect("reads");
    assert_close("null experts", &got, &cases.each_ref().map(|c| c.1).concat(), 1e-6, 0.0);
    // A copy of weight 1 is a copy.
    assert_eq!(got[3..6], rows[3..6]);
}

/// Few tokens and many; experts with weights that nobody chose are NaN; a norm in front of all.
#[on_device]
async fn mixtures_have_experts_without_weights(gpu: Gpu) {
    for tokens in [2u32, 40] {
        let [e, i, d] = [4u32, 24, 36];
        let mut block = Block::seeded([e, i, d]);
        // 0..4 have weights, 4 and 5 copy, 6 is of zero.
        let routes: Vec<Vec<(u32, f32)>> = (0..tokens)
            .map(|t| {
                let ids = [hash(t) % 7, hash(t + 100) % 7].map(|id| if id == 1 { 4 } else { id });
                ids.map(|id| (id, 0.25 + (hash(t + id) % 8) as f32 / 8.0)).to_vec()
            })
            .collect();
        let x = seeded((tokens * d) as usize, 9);
        let norm: Vec<f32> = seeded(d as usize, 5).iter().map(|v| 1.0 + 0.1 * v).collect();
        let normalised: Vec<f32> = x
            .chunks_exact(d as usize)
            .flat_map(|row| {
                let scale = (row.iter().map(|v| v * v).sum::<f32>() / d as f32 + 1e-5).sqrt();
                row.iter().zip(&norm).map(move |(v, w)| v / scale * w).collect::<Vec<_>>()
            })
            .collect();
        let with_weights: Vec<Vec<(u32, f32)>> = routes
            .iter()
            .map(|of| of.iter().map(|&(id, w)| if id < e { (id, w) } else { (NONE, 0.0) }).collect())
            .collect();
        let mut want = block.apply(&normalised, &with_weights, swiglu);
        for ((y, x), of) in
            want.chunks_exact_mut(d as usize).zip(normalised.chunks_exact(d as usize)).zip(&routes)
        {
            let copied: f32 = of.iter().filter(|r| (4..6).contains(&r.0)).map(|r| r.1).sum();
            y.iter_mut().zip(x).for_each(|(y, x)| *y += copied * x);
        }
        let size = (i * d) as usize;
        block.gate[size..2 * size].fill(f32::NAN);
        block.down[size..2 * size].fill(f32::NAN);
        let [gate_up, down] = block.upload(&gpu, WeightType::F32);
        let experts = Experts {
            gate_up: &gate_up,
            gate_up_bias: None,
            down: &down,
            down_bias: None,
            act: GluAct::Silu,
        };
        let weight = Tensor::from_f32(&gpu, &norm, &[d]).expect("uploads");
        let residual = seeded((tokens * d) as usize, 11);
        let tensor = Tensor::from_f32(&gpu, &residual, &[tokens, d]).expect("uploads");
        let opts = Mixture {
            norm: Some(Norm::Rms { weight: &weight, eps: 1e-5 }),
            alpha: 0.5,
            residual: Some(&tensor),
            null: Some(Null { kinds: NullExperts { constant: 0, copy: 2 }, constant: None }),
            down_note: None,
        };
        let got = run(&gpu, &x, &upload_routes(&gpu, &routes), &experts, &opts).await;
        let want: Vec<f32> = want.iter().zip(&residual).map(|(y, r)| r + 0.5 * y).collect();
        assert_close(&format!("{tokens} tokens"), &got, &want, 1e-4, 1e-4);
    }
}

/// Layers that share experts: those of several matrices as those of one, under the names that a table gives them.
#[on_device]
async fn layers_share_experts_in_a_pool(gpu: Gpu) {
    let blocks = [1u32, 3].map(|e| Block::seeded([e, 16, 24]));
    let of = |values: fn(&Block) -> &Vec<f32>| blocks.iter().flat_map(|b| values(b).clone()).collect();
    let whole = Block { dims: [4, 16, 24], gate: of(|b| &b.gate), up: of(|b| &b.up), down: of(|b| &b.down) };
    let apart = blocks.each_ref().map(|b| b.upload(&gpu, WeightType::F32));
    let [gate_up, down] = [0, 1].map(|i| Matrix::pool(&[&apart[0][i], &apart[1][i]]).expect("alike"));
    assert_eq!([gate_up.experts, gate_up.n, down.experts, down.n], [4, 128, 4, 96]);
    // (layer, expert) of names 0..4: (1, 2), (0, 0), (1, 1), (1, 0).
    let table = [3u32, 0, 2, 1];
    let logits = [0.5f32, 2.0, -1.0, 1.0, 3.0, 0.0, 1.5, 2.5];
    let router = Router { experts: 4, k: 2, ..Router::default() };
    let named = routes(&gpu, &router, &logits, [None; 2]).await;
    assert_eq!([named[0][0].0, named[0][1].0, named[1][0].0, named[1][1].0], [1, 3, 0, 3]);
    let placed: Vec<Vec<(u32, f32)>> =
        named.iter().map(|of| of.iter().map(|&(e, w)| (table[e as usize], w)).collect()).collect();
    let x = seeded(48, 9);
    let tensor = Tensor::from_f32(&gpu, &x, &[2, 24]).expect("uploads");
    let logits = Tensor::from_f32(&gpu, &logits, &[2, 4]).expect("uploads");
    let table = Tensor::from_u32(&gpu, &table, &[4]).expect("uploads");
    let experts =
        Experts { gate_up: &gate_up, gate_up_bias: None, down: &down, down_bias: None, act: GluAct::Silu };
    let mut frame = Frame::new(&gpu);
    let vectors = RouterVectors { table: Some(&table), ..RouterVectors::default() };
    let routes = route(&mut frame, &logits, &router, vectors).expect("records");
    let y = mixture(&mut frame, &tensor, &routes, &experts, &Mixture::default()).expect("records");
    frame.submit().expect("runs");
    let got = y.to_f32(&gpu).await.expect("reads");
    assert_close("pool", &got, &whole.apply(&x, &placed, swiglu), 1e-4, 1e-4);
    let other = Matrix { k: 16, ..gate_up.clone() };
    let error = Matrix::pool(&[&gate_up, &other]).expect_err("16 columns").to_string();
    assert!(error.contains("columns is 16"), "{error}");
    assert!(Matrix::pool(&[]).is_err());
}

#[on_device]
async fn what_does_not_fit_is_a_typed_error(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
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
    let null = Null { kinds: NullExperts { constant: 1, copy: 0 }, constant: None };
    let error = null_experts(&mut frame, &x, &routes, 2, &null, 1.0, None).expect_err("no weights");
    assert!(error.to_string().contains("constant experts is 1"), "{error}");
    combine(&mut frame, &o, &routes, 2, 1.0, None).expect_err("three slots of one");
}
