//! Logit processing against transformers' processors.

use girih_model::run::sampler::{Past, Sampler, Sampling};
use girih_model::{Config, GenerationConfig};
use girih_tests::goldens;
use serde_json::{Value, json};

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

fn ids(v: &Value) -> Vec<u32> {
    v.as_array().expect("a list").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

/// A `generation_config.json` gives the probabilities that transformers' `generate` draws from.
#[test]
fn rules_of_checkpoints() {
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 24, "hidden_size": 8,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "eos_token_id": 3,
    });
    let config = Config::parse(config.to_string().as_bytes()).expect("a configuration");
    let golden = goldens::cases("ops/sampling_rules");
    let cases = golden["cases"].as_array().expect("cases");
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let asked = GenerationConfig::parse(case["config"].to_string().as_bytes(), &config).expect(name);
        let logits: Vec<f32> = numbers(&case["logits"]).into_iter().map(|v| v as f32).collect();
        let (prompt, new) = (ids(&case["prompt"]), ids(&case["new"]));
        let max_tokens = case["max_new_tokens"].as_u64().expect("a number") as usize;
        let tokens = [prompt.as_slice(), &new].concat();
        let past = Past {
            tokens: &tokens,
            prompt: prompt.len(),
            limit: prompt.len() + max_tokens,
            ends: &asked.eos_token_ids,
        };
        let kept = asked.sampling.process_after(&logits, &past).expect(name);
        let mut got = vec![0.0f32; logits.len()];
        for &(token, p) in &kept {
            got[token as usize] = p as f32;
        }
        let want: Vec<f32> = numbers(&case["probs"]).into_iter().map(|v| v as f32).collect();
        for (token, (g, w)) in got.iter().zip(&want).enumerate() {
            assert_eq!(*g > 0.0, *w > 0.0, "{name}: token {token}: {g}, must be {w}");
        }
        goldens::assert_close(name, &got, &want, 1e-7, 1e-5);
        // The loop knows the same of the text.
        let mut sampler = Sampler::new(asked.sampling.clone()).expect(name);
        sampler.begin(prompt.len(), max_tokens, &asked.eos_token_ids);
        let drawn = sampler.sample(&logits, &tokens).expect(name);
        assert!(want[drawn as usize] > 0.0, "{name}");
    }
}
