//! Logit processing against transformers' processors.

use girih_model::sampler::{Sampler, Sampling};
use girih_tests::goldens;

#[test]
fn processors() {
    for case in goldens::op("sampling").cases() {
        let name = &case.name;
        let (shape, logits) = case.f32("logits");
        let [rows, vocab] = shape[..] else { panic!("{name}: {shape:?}") };
        let number = |field: &str, default: f32| case.number(field).map_or(default, |v| v as f32);
        let greedy = case.has("greedy");
        let sampling = Sampling {
            temperature: number("temperature", if greedy { 0.0 } else { 1.0 }),
            top_k: number("top_k", 0.0) as u32,
            top_p: number("top_p", 1.0),
            min_p: number("min_p", 0.0),
            repetition_penalty: number("repetition_penalty", 1.0),
            ..Sampling::default()
        };
        let previous: Vec<u32> =
            if case.has("prev") { case.ints("prev").iter().map(|&t| t as u32).collect() } else { Vec::new() };
        let per_row = previous.len() / rows as usize;
        for row in 0..rows as usize {
            let logits = &logits[row * vocab as usize..][..vocab as usize];
            let previous = &previous[row * per_row..][..per_row];
            let kept = sampling.process(logits, previous).expect(name);
            assert!(kept.is_sorted_by(|a, b| a.1 >= b.1), "{name}: most likely first");
            if greedy {
                let want = case.ints("greedy")[row] as u32;
                assert_eq!(kept, [(want, 1.0)], "{name}");
                let mut sampler = Sampler::new(sampling.clone()).expect("valid");
                assert_eq!(sampler.sample(logits, previous), Ok(want), "{name}");
                continue;
            }
            let mut got = vec![0.0f32; vocab as usize];
            for &(token, p) in &kept {
                got[token as usize] = p as f32;
            }
            let (_, want) = case.f32("probs");
            let want = &want[row * vocab as usize..][..vocab as usize];
            let same_set = got.iter().zip(want).all(|(g, w)| (*g > 0.0) == (*w > 0.0));
            assert!(same_set, "{name}: row {row}: other tokens are kept");
            goldens::assert_close(&format!("{name}: row {row}"), &got, want, 1e-7, 1e-6);
            // All tokens as candidates, in any order, give the same.
            let ids: Vec<u32> = (0..vocab).rev().collect();
            let values: Vec<f32> = logits.iter().rev().copied().collect();
            assert_eq!(sampling.process_candidates(&values, &ids, previous).expect(name), kept, "{name}");
        }
    }
}
