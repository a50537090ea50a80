//! Memory layers against published vectors and brute force.

use girih_kernels::testing::{hash, seeded};
use girih_ops::memory::{NeuronAct, SlotWeight, neuron_weights, product_keys, weighted_rows};
use girih_ops::moe::decode_routes;
use girih_ops::{Frame, Gpu, Matrix, Part, Tensor, WeightType};
use girih_tests::goldens::assert_close;
use girih_tests::on_device;
use girih_tests::routing::upload_routes;

/// Scores of four rows and four columns of one query.
const ROWS: [f32; 4] = [0.5, -1.0, 2.0, 1.25];
const COLUMNS: [f32; 4] = [1.0, 0.25, -0.5, 1.5];

async fn found(
    gpu: &Gpu,
    [rows, columns]: [&[f32]; 2],
    queries: u32,
    k: u32,
    weight: SlotWeight,
) -> Vec<(u32, f32)> {
    let [rows, columns] = [rows, columns]
        .map(|v| Tensor::from_f32(gpu, v, &[queries, v.len() as u32 / queries]).expect("uploads"));
    let mut frame = Frame::new(gpu);
    let routes = product_keys(&mut frame, &rows, &columns, k, weight).expect("records");
    frame.submit().expect("runs");
    decode_routes(&routes.to_u32(gpu).await.expect("reads"))
}

fn log_softmax(l: &[f32]) -> Vec<f32> {
    let sum: f32 = l.iter().map(|l| l.exp()).sum();
    l.iter().map(|l| l - sum.ln()).collect()
}

#[on_device]
async fn product_keys_find_the_published_slots(gpu: Gpu) {
    let logs = [log_softmax(&ROWS), log_softmax(&COLUMNS)];
    for (weight, want) in [
        (SlotWeight::Softmax, [0.422761, 0.256418, 0.199698, 0.121123]),
        (SlotWeight::Probability, [0.282479, 0.171332, 0.133434, 0.080932]),
    ] {
        for scores in [[&ROWS[..], &COLUMNS[..]], [&logs[0], &logs[1]]] {
            let got = found(&gpu, scores, 1, 4, weight).await;
            assert_eq!(got.iter().map(|r| r.0).collect::<Vec<_>>(), [11, 8, 15, 9], "{weight:?}");
            let weights: Vec<f32> = got.iter().map(|r| r.1).collect();
            assert_close(&format!("{weight:?}"), &weights, &want, 2e-6, 0.0);
        }
    }
    let got = found(&gpu, [&logs[0], &logs[1]], 1, 4, SlotWeight::Score).await;
    let weights: Vec<f32> = got.iter().map(|r| r.1).collect();
    assert_close("scores", &weights, &[-1.26415, -1.76415, -2.01415, -2.51415], 1e-5, 0.0);
}

/// All N = R C sums, sorted: by the score, then the better row, then the better column.
fn brute_force(rows: &[f32], columns: &[f32], k: usize) -> Vec<(u32, f32)> {
    let rank =
        |of: &[f32], i: usize| (0..of.len()).filter(|&j| of[j] > of[i] || (of[j] == of[i] && j < i)).count();
    let mut all = Vec::new();
    for i in 0..rows.len() {
        for j in 0..columns.len() {
            all.push((rows[i] + columns[j], rank(rows, i), rank(columns, j), i * columns.len() + j));
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    all.truncate(k);
    all.into_iter().map(|(score, _, _, slot)| (slot as u32, score)).collect()
}

/// Scores of few values have many ties, among rows, columns and sums.
#[on_device]
async fn the_best_sums_are_those_of_brute_force(gpu: Gpu) {
    for (r, c, k, values) in [(30u32, 41u32, 64u32, 5u32), (64, 64, 16, 4096), (7, 3, 21, 2)] {
        let scores = |n: u32, seed: u32| -> Vec<f32> {
            (0..3 * n).map(|i| (hash(i + seed) % values) as f32 / 64.0).collect()
        };
        let (rows, columns) = (scores(r, 1), scores(c, 1000));
        let got = found(&gpu, [&rows, &columns], 3, k, SlotWeight::Score).await;
        for q in 0..3usize {
            let of = |v: &[f32], n: u32| v[q * n as usize..(q + 1) * n as usize].to_vec();
            let want = brute_force(&of(&rows, r), &of(&columns, c), k as usize);
            assert_eq!(got[q * k as usize..(q + 1) * k as usize], want, "{r} x {c}, query {q}");
        }
    }
}

/// W `[16, 3]`, V `[16, 3]` of the published layer.
fn tables(gpu: &Gpu) -> [Matrix; 2] {
    let table = |value: fn(u32, u32) -> f32| {
        let values: Vec<f32> = (0..48).map(|at| value(at / 3, at % 3)).collect();
        Matrix::from_f32(gpu, &values, 16, 3, WeightType::F32).expect("uploads")
    };
    [
        table(|i, j| ((3 * i + 5 * j) % 7) as f32 / 4.0 - 0.75),
        table(|i, j| ((2 * i + 3 * j) % 5) as f32 / 4.0 - 0.5),
    ]
}

#[on_device]
async fn layers_of_single_neurons_give_what_was_published(gpu: Gpu) {
    let [w, v] = tables(&gpu);
    let x = Tensor::from_f32(&gpu, &[1.0, -2.0, 0.5], &[1, 3]).expect("uploads");
    let [rows, columns] = [ROWS, COLUMNS].map(|of| Tensor::from_f32(&gpu, &of, &[1, 4]).expect("uploads"));
    for (weight, act, want) in [
        (SlotWeight::Softmax, NeuronAct::Silu, [-0.177929, 0.163784, -0.035917]),
        (SlotWeight::Probability, NeuronAct::Silu, [-0.118888, 0.109436, -0.023999]),
        (SlotWeight::Softmax, NeuronAct::Gelu, [-0.204291, 0.190501, -0.042860]),
        (SlotWeight::Softmax, NeuronAct::Linear, [-0.221651, 0.188303, -0.034653]),
    ] {
        let mut frame = Frame::new(&gpu);
        let routes = product_keys(&mut frame, &rows, &columns, 4, weight).expect("records");
        let routes = neuron_weights(&mut frame, &x, &routes, &w, act).expect("records");
        let y = weighted_rows(&mut frame, &routes, &v, 1.0, None).expect("records");
        frame.submit().expect("runs");
        let got = y.to_f32(&gpu).await.expect("reads");
        assert_close(&format!("{weight:?} {act:?}"), &got, &want, 2e-6, 0.0);
    }
}

/// Tables in two parts give what those in one give; rows that no slot names are NaN; the same bits every time.
#[on_device]
async fn tables_in_parts_add_up(gpu: Gpu) {
    let (tokens, slots, n, c) = (3u32, 9u32, 20u32, 40u32);
    let mut values = seeded((n * c) as usize, 1);
    values[(4 * c) as usize..(5 * c) as usize].fill(f32::NAN);
    let whole = Matrix::from_f32(&gpu, &values, n, c, WeightType::F32).expect("uploads");
    let [first, second] = [(0, 7), (7, 13)].map(|(from, rows): (u32, u32)| {
        let values = &values[(from * c) as usize..((from + rows) * c) as usize];
        Matrix::from_f32(&gpu, values, rows, c, WeightType::F32).expect("uploads")
    });
    let behind = second.parts.into_iter().map(|p| Part { row0: p.row0 + 7, ..p });
    let parts = Matrix { n, parts: first.parts.into_iter().chain(behind).collect(), ..whole.clone() };
    let slot = |i: u32| match hash(i) % n {
        4 => n + 3,
        slot => slot,
    };
    let routes: Vec<Vec<(u32, f32)>> = (0..tokens)
        .map(|t| (0..slots).map(|s| (slot(t * slots + s), (s as f32 - 3.0) / 8.0)).collect())
        .collect();
    let x = seeded((tokens * c) as usize, 2);
    let residual = seeded((tokens * c) as usize, 3);
    let mut want = Vec::new();
    for (t, of) in routes.iter().enumerate() {
        let x = &x[t * c as usize..(t + 1) * c as usize];
        let mut y: Vec<f64> =
            residual[t * c as usize..(t + 1) * c as usize].iter().map(|&r| r.into()).collect();
        for &(slot, weight) in of.iter().filter(|r| r.0 < n) {
            let row = &values[(slot * c) as usize..((slot + 1) * c) as usize];
            let dot: f64 = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            y.iter_mut()
                .zip(row)
                .for_each(|(y, &v)| *y += 0.5 * f64::from(weight) * dot.max(0.0) * f64::from(v));
        }
        want.extend(y.into_iter().map(|v| v as f32));
    }
    let routes = upload_routes(&gpu, &routes);
    let x = Tensor::from_f32(&gpu, &x, &[tokens, c]).expect("uploads");
    let residual = Tensor::from_f32(&gpu, &residual, &[tokens, c]).expect("uploads");
    for table in [&whole, &parts, &parts] {
        let mut frame = Frame::new(&gpu);
        let weighted = neuron_weights(&mut frame, &x, &routes, table, NeuronAct::Relu).expect("records");
        let y = weighted_rows(&mut frame, &weighted, table, 0.5, Some(&residual)).expect("records");
        frame.submit().expect("runs");
        let got = y.to_f32(&gpu).await.expect("reads");
        let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert_close(&format!("{} parts", table.parts.len()), &got, &want, f64::from(largest) * 1e-5, 1e-5);
    }
}

#[on_device]
async fn what_does_not_fit_is_a_typed_error(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
    let [rows, columns] =
        [[2u32, 3], [2, 4]].map(|shape| frame.alloc(&shape, girih_ops::DType::F32).expect("allocates"));
    for (k, part) in
        [(0, "slots of a query is 0"), (13, "slots of a query is 13"), (65, "slots of a query is 65")]
    {
        let error = product_keys(&mut frame, &rows, &columns, k, SlotWeight::Softmax).expect_err("must fail");
        assert!(error.to_string().contains(part), "{error}");
    }
    let [w, _] = tables(&gpu);
    let routes = upload_routes(&gpu, &[vec![(0, 1.0)]]);
    let x = Tensor::from_f32(&gpu, &[0.0; 4], &[1, 4]).expect("uploads");
    neuron_weights(&mut frame, &x, &routes, &w, NeuronAct::Silu).expect_err("4 channels of 3");
    weighted_rows(&mut frame, &routes, &w, 1.0, Some(&x)).expect_err("4 channels of 3");
    weighted_rows(&mut frame, &x, &w, 1.0, None).expect_err("no routes");
}
