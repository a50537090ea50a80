//! `girih quantize` on mixtures of experts.

use std::collections::BTreeSet;

use safetensors::{Dtype, SafeTensors};

use super::*;

/// Golden mixtures that are stored dense: layers with experts, experts of a layer, their scope.
const MIXTURES: [(&str, usize, usize, &str); 8] = [
    ("mixtral", 2, 4, "block_sparse_moe.experts"),
    ("qwen2_moe", 2, 8, "mlp.experts"),
    ("qwen3_moe", 2, 8, "mlp.experts"),
    ("olmoe", 2, 8, "mlp.experts"),
    ("glm4_moe", 1, 8, "mlp.experts"),
    ("ernie4_5_moe", 2, 6, "mlp.experts"),
    ("hunyuan_v1_moe", 2, 4, "mlp.experts"),
    ("gpt_oss_bf16", 4, 4, "mlp.experts"),
];

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = tensors.tensor(name).expect(name);
    assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
    tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Ids and logits of the prompt of 17 tokens that transformers has run.
fn reference(model: &str) -> (String, Vec<f32>) {
    let bytes =
        fs::read(goldens().join("models").join(model).join("reference.safetensors")).expect("a golden");
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let ids = tensors.tensor("p17.input_ids").expect("ids");
    let ids: Vec<String> =
        ids.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes).to_string()).collect();
    (ids.join(","), floats(&tensors, "p17.logits"))
}

fn logits(folder: &Folder, args: &[&str]) -> Vec<f32> {
    let file = folder.0.join("logits.safetensors");
    json(&[&["logits", "--out", file.to_str().expect("a path"), "--json"], args].concat());
    let bytes = fs::read(&file).expect("written");
    floats(&SafeTensors::deserialize(&bytes).expect("a safetensors file"), "logits")
}

/// Root mean square of the difference, beside that of `want`.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let noise = square(&mut got.iter().zip(want).map(|(g, w)| f64::from(g - w)));
    (noise / square(&mut want.iter().map(|&w| f64::from(w)))).sqrt()
}

/// A golden with a tokenizer: that of another one, without the pieces that it has no embeddings for.
fn with_tokenizer(name: &str, model: &str) -> Folder {
    let folder = Folder::checkpoint(name, model);
    let bytes = fs::read(goldens().join("models").join(LLAMA).join("tokenizer.json")).expect("a golden");
    let mut tokenizer: Value = serde_json::from_slice(&bytes).expect("JSON");
    let config: Value =
        serde_json::from_slice(&fs::read(folder.0.join("config.json")).expect("a file")).expect("JSON");
    let most = config["vocab_size"].as_u64().expect("a number");
    tokenizer["added_tokens"].as_array_mut().expect("tokens").retain(|t| t["id"].as_u64() < Some(most));
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    vocabulary.retain(|_, id| id.as_u64() < Some(most));
    let pieces: BTreeSet<String> = vocabulary.keys().cloned().collect();
    let joined = |merge: &Value| match merge {
        Value::String(pair) => pair.replacen(' ', "", 1),
        pair => format!("{}{}", pair[0].as_str().expect("a piece"), pair[1].as_str().expect("a piece")),
    };
    let merges = tokenizer["model"]["merges"].as_array_mut().expect("merges");
    merges.retain(|merge| pieces.contains(&joined(merge)));
    tokenizer["post_processor"] = Value::Null;
    fs::write(folder.0.join("tokenizer.json"), tokenizer.to_string()).expect("written");
    folder
}

fn modules(report: &Value) -> &Vec<Value> {
    report["report"]["modules"].as_array().expect("modules")
}

/// Every architecture, stacked and transposed experts too: what is written is read back with the same meaning.
#[test]
fn experts_of_every_architecture_are_quantised() {
    for (model, layers, experts, scope) in MIXTURES {
        let folder = Folder::new(&format!("moe-{model}"));
        let source = goldens().join("models").join(model);
        let out = folder.0.join("out");
        let [source, out] = [&source, &out].map(|path| path.to_str().expect("a path"));
        let report = json(&["quantize", source, out, "--scheme", "w8a16-g32", "--no-eval", "--json"]);
        let of_experts = modules(&report).iter().filter(|m| m["expert"].is_u64());
        let names: BTreeSet<&str> = of_experts.clone().filter_map(|m| m["name"].as_str()).collect();
        assert_eq!(names.len(), 3 * layers * experts, "{model}");
        assert!(of_experts.clone().all(|m| m["tokens"].is_null()), "{model}: nobody has counted");
        assert_eq!(report["report"]["experts_without_tokens"], serde_json::json!([]));
        // Codes of every expert, no floats; routers, gates and biases as they were.
        let read = |dir: &str| fs::read(Path::new(dir).join("model.safetensors")).expect("weights");
        let (before, after) = (read(source), read(out));
        let [before, after] =
            [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).expect("a safetensors file"));
        for name in &names {
            assert!(name.contains(&format!(".{scope}.")), "{model}: {name}");
            let codes = after.tensor(&format!("{name}.weight_codes")).expect(name);
            assert_eq!(codes.dtype(), Dtype::U32, "{model}: {name}");
        }
        let mut kept = 0;
        for (name, tensor) in before.tensors() {
            let is_matrix = name.contains(scope) && !name.ends_with("_bias");
            let router = name.contains("gate.") && !name.contains("gate_proj") || name.contains("router");
            if is_matrix {
                assert!(after.tensor(&name).is_err(), "{model}: {name} is replaced");
            } else if router || name.contains("expert_gate") || name.ends_with("bias") {
                kept += 1;
                assert_eq!(after.tensor(&name).expect(&name).data(), tensor.data(), "{model}: {name}");
            }
        }
        assert!(kept >= layers, "{model}: {kept}");
        // The logits of transformers, up to 8 bits; and what kernels read is what is decoded.
        let (ids, want) = reference(model);
        let got = logits(&folder, &["--model", out, "--ids", &ids]);
        let off = distance(&got, &want);
        println!("{model}: {off:.5} from the dense model");
        assert!((1e-3..0.15).contains(&off), "{model}: {off}");
        // The dense model whose experts are rounded where they lie; its head has 8 bits, too.
        let loaded = logits(&folder, &["--model", source, "--ids", &ids, "--weights", "int8"]);
        let off = distance(&got, &loaded);
        assert!(off < 0.01, "{model}: {off} from the model that is rounded on load");
        let decoded = logits(&folder, &["--model", out, "--ids", &ids, "--weights", "f32"]);
        let off = distance(&got, &decoded);
        assert!(off < 1e-4, "{model}: {off} from the decoded weights");
    }
}

const TEXT: &str = "One and two are three, and three and four are seven. Girls and boys go to bed at ten. ";

/// Statistics by tokens, rotations of x for all experts of a layer, integer activations; in one pass of the text or many.
#[test]
fn experts_are_calibrated_by_their_tokens() {
    for (model, layers, k) in [("qwen2_moe", 2, 3), ("gpt_oss_bf16", 4, 2)] {
        let source = with_tokenizer(&format!("moe-calibrated-{model}"), model);
        let folder = Folder::new(&format!("moe-out-{model}"));
        let text = folder.0.join("text.txt");
        fs::write(&text, TEXT.repeat(12)).expect("written");
        let (ids, want) = reference(model);
        // Four bits are many errors for models of 64 channels with random weights: 0.42 and 0.46, of gpt-oss 0.89 and 0.85;
        // eight with rotated x: 0.035 and 0.26.
        let [four, eight] = if model == "qwen2_moe" { [0.65, 0.06] } else { [1.1, 0.4] };
        for (scheme, transform, bound) in [
            ("w4a16-g32-gptq", "none", four),
            ("w4a8-g32-hadamard", "Hadamard, row", four),
            ("w8a8-flat-free-gptq", "Hadamard, row", eight),
        ] {
            let [out, again] = ["out", "again"].map(|name| folder.0.join(format!("{name}-{scheme}")));
            let [text, out, again] = [&text, &out, &again].map(|path| path.to_str().expect("a path"));
            let args = |out| {
                ["quantize", source.path(), out, "--scheme", scheme, "--calib", text, "--no-eval", "--json"]
            };
            let report = json(&args(out));
            let tokens = report["report"]["calibration"]["tokens"].as_u64().expect("a number");
            let gates: Vec<&Value> = modules(&report)
                .iter()
                .filter(|m| {
                    m["expert"].is_u64() && m["name"].as_str().is_some_and(|n| n.ends_with("gate_proj"))
                })
                .collect();
            let counted: u64 = gates.iter().filter_map(|m| m["tokens"].as_u64()).sum();
            assert_eq!(counted, tokens * k * layers, "{model}, {scheme}: every choice counts once");
            for layer in 0..layers {
                let mut of_layer = modules(&report).iter().filter(|m| m["layer"] == layer);
                let first = of_layer.next().expect("a module");
                assert!(of_layer.all(|m| m["transform"] == transform), "{model}, {scheme}: {first}");
            }
            let spread: BTreeSet<u64> = gates.iter().filter_map(|m| m["tokens"].as_u64()).collect();
            assert!(spread.len() > 2, "{model}, {scheme}: experts were given different numbers: {spread:?}");
            let got = logits(&folder, &["--model", out, "--ids", &ids]);
            let off = distance(&got, &want);
            println!("{model}, {scheme}: {off:.4} from the dense model");
            assert!((1e-4..bound).contains(&off), "{model}, {scheme}: {off}");
            if transform == "none" {
                let decoded = logits(&folder, &["--model", out, "--ids", &ids, "--weights", "f32"]);
                let off = distance(&got, &decoded);
                assert!(off < 1e-3, "{model}, {scheme}: {off} from the decoded weights");
            }
            if scheme == "w4a8-g32-hadamard" {
                continue;
            }
            // One expert at a time: the same bytes.
            json(&[&args(again)[..], &["--memory", "1e-6"]].concat());
            let weights = |dir: &str| fs::read(Path::new(dir).join("model.safetensors")).expect("weights");
            assert!(weights(out) == weights(again), "{model}, {scheme}");
        }
    }
}

/// An expert that the router never chooses is said, and rounded to nearest.
#[test]
fn experts_without_tokens_are_said() {
    let source = with_tokenizer("moe-without", "glm4_moe");
    let folder = Folder::new("moe-without-out");
    let text = folder.0.join("text.txt");
    fs::write(&text, TEXT.repeat(12)).expect("written");
    let text = text.to_str().expect("a path");
    let quantize = |out: &str, extra: &[&str]| {
        let out = folder.0.join(out);
        let paths = [source.path(), out.to_str().expect("a path")];
        let args = ["--calib", text, "--no-eval"];
        girih(&[&["quantize"], &paths[..], &["--scheme", "w4a16-g32-gptq"], &args[..], extra].concat())
    };
    let report = |output: &Output| -> Value {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let all = report(&quantize("all", &["--json"]));
    let all = &all["report"]["experts_without_tokens"];
    assert_eq!(all, &serde_json::json!([]), "every expert has tokens");
    source.edit("model.safetensors", |mut bytes| {
        let place = {
            let (header, tensors) = SafeTensors::read_metadata(&bytes).expect("a header");
            let info = tensors.info("model.layers.1.mlp.gate.e_score_correction_bias").expect("a bias");
            8 + header + info.data_offsets.0
        };
        for expert in [2, 5] {
            bytes[place + 4 * expert..][..4].copy_from_slice(&(-1000f32).to_le_bytes());
        }
        bytes
    });
    let without = report(&quantize("without", &["--json"]));
    let want = serde_json::json!([{ "layer": 1, "experts": [2, 5], "of": 8 }]);
    assert_eq!(without["report"]["experts_without_tokens"], want);
    for m in modules(&without).iter().filter(|m| m["expert"].is_u64()) {
        let lacks = m["expert"] == 2 || m["expert"] == 5;
        assert_eq!(m["tokens"] == 0, lacks, "{m}");
        assert_eq!(m["output_sqnr_db"].is_null(), lacks, "{m}");
        // To nearest, 4 bits in groups of 32: no compensation that moves weights away.
        let db = m["weight_sqnr_db"].as_f64().expect("a ratio");
        assert!(db > if lacks { 18.0 } else { 10.0 }, "{m}");
    }
    let text = quantize("text", &[]);
    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(said.contains("layer 1: no token of calibration went to 2 of 8 experts"), "{said}");
    assert!(said.contains("rounded to nearest: 2, 5"), "{said}");
    let page = fs::read_to_string(folder.0.join("text/quantize-report.html")).expect("a page");
    assert!(page.contains("no token of calibration went to 2 of 8 experts"));
}

/// The trained mixture in 4 bits tells much the same.
#[test]
fn a_quantised_mixture_is_near_the_dense_one() {
    let folder = Folder::new("moe-near");
    for (scheme, ratio, kl) in [("w4a16", 1.1, 0.1), ("w4a8-flat-free-gptq", 1.02, 0.03)] {
        let out = folder.0.join(scheme);
        let path = out.to_str().expect("a path");
        let args = ["quantize", "fable-moe", path, "--scheme", scheme, "--calib-tokens", "2048", "--json"];
        let report = json(&args);
        let evaluation = &report["report"]["evaluation"];
        let number = |key: &str| evaluation[key].as_f64().expect(key);
        println!("{scheme}: {evaluation}");
        assert!((0.95..ratio).contains(&number("perplexity_ratio")), "{scheme}: {evaluation}");
        assert!((0.0..kl).contains(&number("kl_per_token")), "{scheme}: {evaluation}");
        let [before, after] = ["bytes_before", "bytes_after"].map(|key| report["report"][key].as_f64());
        let share = after.zip(before).map(|(after, before)| after / before).expect("bytes");
        assert!(share < 0.45, "{scheme}: {share}");
    }
}
