//! Sampling against independent results and against itself on the host.

use girih_kernels::testing::{hash, seeded};
use girih_ops::{Batch, Chunk, DType, Frame, Gpu, Tensor};
use girih_tests::goldens::{counted, op};
use girih_tests::on_device;

#[on_device("goldens/ops/sampling")]
async fn argmax_agrees_with_the_goldens(gpu: Gpu) {
    let goldens = op("sampling");
    let mut ran = 0;
    for case in goldens.cases() {
        // The other cases are about logit processors, which are not operations of their own.
        if !case.has("greedy") {
            continue;
        }
        ran += 1;
        let (shape, logits) = case.f32("logits");
        let logits = Tensor::from_f32(&gpu, &logits, &shape).expect("uploads");
        let mut frame = Frame::new(&gpu);
        let best = girih_ops::argmax(&mut frame, &logits).expect("records");
        frame.submit().expect("runs");
        let got: Vec<i64> = best.to_u32(&gpu).await.expect("reads").into_iter().map(i64::from).collect();
        assert_eq!(got, case.ints("greedy"), "{}", case.name);
    }
    counted("ops/sampling: greedy", ran);
}

/// The definition of top-k on the host.
fn sorted(logits: &[f32]) -> Vec<(f32, u32)> {
    let mut all: Vec<(f32, u32)> = logits.iter().zip(0..).map(|(&v, i)| (v, i)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all
}

#[on_device]
async fn top_k_and_argmax_agree_on_large_vocabularies(gpu: Gpu) {
    for (rows, vocab, k) in [(2u32, 151_936u32, 64u32), (3, 50_257, 40), (1, 4096, 1), (2, 97, 97)] {
        // Rounding makes ties.
        let data: Vec<f32> =
            seeded((rows * vocab) as usize, vocab).iter().map(|v| (v * 1000.0).round() + 1.0).collect();
        let logits = Tensor::from_f32(&gpu, &data, &[rows, vocab]).expect("uploads");
        let mut frame = Frame::new(&gpu);
        let (values, ids) = girih_ops::top_k(&mut frame, &logits, k).expect("records");
        let best = girih_ops::argmax(&mut frame, &logits).expect("records");
        frame.submit().expect("runs");
        let values = values.to_f32(&gpu).await.expect("reads");
        let ids = ids.to_u32(&gpu).await.expect("reads");
        let best = best.to_u32(&gpu).await.expect("reads");
        for (s, row) in data.chunks_exact(vocab as usize).enumerate() {
            let want = &sorted(row)[..k as usize];
            let at = s * k as usize;
            let got: Vec<(f32, u32)> = (at..at + k as usize).map(|i| (values[i], ids[i])).collect();
            assert_eq!(got, want, "row {s} of {vocab}");
            assert_eq!(best[s], want[0].1, "row {s} of {vocab}");
        }
    }
}

#[on_device]
async fn a_greedy_plan_advances_its_own_batch(gpu: Gpu) {
    let (num_seqs, vocab, steps) = (3u32, 20_000u32, 4u32);
    let winners: Vec<u32> = (0..num_seqs).map(|s| hash(s + 1) % vocab).collect();
    let mut data = seeded((num_seqs * vocab) as usize, 5);
    for (s, &w) in winners.iter().enumerate() {
        data[s * vocab as usize + w as usize] = 100.0;
    }
    let logits = Tensor::from_f32(&gpu, &data, &[num_seqs, vocab]).expect("uploads");
    let chunks: Vec<Chunk<'_>> =
        (0..num_seqs).map(|s| Chunk { slot: s, start: 10 * s, token_ids: &[1] }).collect();
    let batch = Batch::upload(&gpu, &chunks).expect("uploads");
    let out = Tensor::from_u32(&gpu, &[0; 4 * 3], &[num_seqs, 4]).expect("uploads");
    let mut frame = Frame::new(&gpu);
    girih_ops::greedy_step(&mut frame, &logits, &batch, &out).expect("records");
    let plan = frame.plan().expect("plans");
    assert_eq!(plan.num_dispatches(), 2);
    gpu.replay(&plan, steps); // one more than fits
    let want: Vec<u32> = winners.iter().flat_map(|&w| [3, w, w, w]).collect();
    assert_eq!(out.to_u32(&gpu).await.expect("reads"), want);
    assert_eq!(batch.token_ids.to_u32(&gpu).await.expect("reads"), winners);
    assert_eq!(batch.positions.to_u32(&gpu).await.expect("reads"), [4, 14, 24]);
    let seqs = batch.seqs.to_u32(&gpu).await.expect("reads");
    assert_eq!(seqs, [0, 1, 5, 0, 1, 1, 15, 1, 2, 1, 25, 2]);
}

#[on_device]
async fn what_does_not_fit_is_a_typed_error(gpu: Gpu) {
    let mut frame = Frame::new(&gpu);
    let logits = frame.alloc(&[2, 8], DType::F32).expect("allocates");
    let error = girih_ops::top_k(&mut frame, &logits, 9).expect_err("k is above V").to_string();
    assert!(error.contains("k is 9, must be 1 to 8"), "{error}");
    let batch = Batch::upload(&gpu, &[Chunk { slot: 0, start: 0, token_ids: &[1, 2] }]).expect("uploads");
    let out = frame.alloc(&[1, 4], DType::U32).expect("allocates");
    let one = frame.alloc(&[1, 8], DType::F32).expect("allocates");
    assert!(girih_ops::greedy_step(&mut frame, &one, &batch, &out).is_err(), "two tokens of one sequence");
    assert!(girih_ops::greedy_step(&mut frame, &logits, &batch, &out).is_err());
    assert!(girih_ops::argmax(&mut frame, &out).is_err(), "u32 logits");
}
