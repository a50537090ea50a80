//! What a GGUF file says of its network: biases of single tensors, tensors that nothing uses, keys that are absent,
//! numbers that no model can have, files in parts.

use std::sync::Arc;

use girih_model::checkpoint::format::gguf::{Array, GgufSource, GgufType, Value, checkpoint};
use girih_model::checkpoint::source::{ByteSource, MemorySource};
use girih_model::network::arch::KNOWN;
use girih_model::{Config, Input, LoadError, LoadOptions, Model, Rows, Session, SessionOptions, load_config};
use girih_tests::checkpoints::Checkpoint;
use girih_tests::gguf::{File, convert};
use girih_tests::goldens::assert_close;
use pollster::block_on;
use safetensors::Dtype;
use serde_json::json;

const FILE: &str = "model.gguf";

fn try_load(file: &File) -> Result<Arc<Model>, LoadError> {
    let source = Arc::new(MemorySource::new().with(FILE, file.bytes(3)));
    block_on(Model::load(&girih_tests::gpu(), source, LoadOptions::default(), |_| ()))
}

fn logits_of(model: &Arc<Model>) -> Vec<f32> {
    let mut session = Session::new(model, SessionOptions::default()).expect("a session");
    let token_ids: Vec<u32> = (0..9).map(|i| i * 37 % 96).collect();
    let logits =
        session.forward(&[Input { slot: 0, token_ids: &token_ids }], Rows::All, None).expect("forward");
    block_on(logits.to_f32(session.gpu())).expect("read")
}

fn logits(file: &File) -> Vec<f32> {
    logits_of(&try_load(file).expect("loads"))
}

fn config(file: &File) -> Result<Config, LoadError> {
    let source = Arc::new(MemorySource::new().with(FILE, file.bytes(3)));
    block_on(async { load_config(&GgufSource::open(source, FILE, KNOWN.gguf).await?).await })
}

/// A converted checkpoint without biases.
fn plain(model: &'static str) -> File {
    let made = Checkpoint::new(model, Dtype::F32, [64, 4, 2, 16, 96, 96], &json!({}));
    convert(made.source(), made.config())
}

fn differ(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-3)
}

/// Adds a bias to a module of both layers; rows of the module from its weight.
fn add_bias(file: &mut File, module: &str, value: impl Fn(usize) -> f32) {
    for layer in 0..2 {
        let name = format!("blk.{layer}.{module}");
        let weight = file.tensors.iter().find(|t| t.name == format!("{name}.weight")).expect("a matrix");
        let values: Vec<f32> = (0..weight.shape[0] as usize).map(&value).collect();
        file.vector(&format!("{name}.bias"), &values);
    }
}

/// Each projection may have a bias alone; those that are left out are 0, and none is dropped.
#[test]
fn biases_are_a_matter_of_single_tensors() {
    let some = |i: usize| (i % 7) as f32 * 0.2 - 0.5;
    let groups: [&[&str]; 2] =
        [&["attn_q", "attn_k", "attn_v", "attn_output"], &["ffn_gate", "ffn_up", "ffn_down"]];
    let base = plain("llama-bias");
    let without = logits(&base);
    for group in groups {
        for present in [&group[..1], &group[..group.len() - 1], &group[group.len() - 1..]] {
            let (mut part, mut whole) = (base.clone(), base.clone());
            for module in group {
                if present.contains(module) {
                    add_bias(&mut part, module, some);
                    add_bias(&mut whole, module, some);
                } else {
                    add_bias(&mut whole, module, |_| 0.0);
                }
            }
            let (got, want) = (logits(&part), logits(&whole));
            assert_close(&format!("{present:?}"), &got, &want, 1e-6, 0.0);
            assert!(differ(&got, &without), "{present:?} changes nothing");
        }
    }
    // One layer has a bias, the other has none.
    let (mut part, mut whole) = (base.clone(), base);
    add_bias(&mut whole, "attn_v", |_| 0.0);
    part.vector("blk.1.attn_v.bias", &[0.5; 32]);
    let t = whole.tensors.iter_mut().find(|t| t.name == "blk.1.attn_v.bias").expect("added");
    t.bytes = [0.5f32; 32].iter().flat_map(|v| v.to_le_bytes()).collect();
    assert_close("one layer", &logits(&part), &logits(&whole), 1e-6, 0.0);
}

/// Qwen 2's projections have biases whatever its configuration says; a file may leave single ones out.
#[test]
fn biases_that_the_architecture_has_anyway() {
    let mut file = plain("qwen2-bias");
    file.tensors.retain(|t| !t.name.ends_with("attn_k.bias"));
    let mut whole = file.clone();
    add_bias(&mut whole, "attn_k", |_| 0.0);
    assert_close("qwen2", &logits(&file), &logits(&whole), 1e-6, 0.0);
}

/// Architectures with experts of which there is no file of llama.cpp: the same network as in safetensors.
#[test]
fn mixtures_without_published_files() {
    let granite = json!({
        "num_local_experts": 6, "num_experts_per_tok": 2, "residual_multiplier": 0.3, "embedding_multiplier": 3.0,
        "attention_multiplier": 0.05, "logits_scaling": 2.0,
    });
    let phi = json!({
        "num_local_experts": 5, "attention_bias": true, "lm_head_bias": true, "rope_theta": 1e5,
    });
    for (name, extra) in [("granitemoe", granite), ("phimoe", phi)] {
        let made = Checkpoint::new(name, Dtype::F32, [64, 4, 2, 16, 96, 96], &extra);
        let model = block_on(Model::load(&girih_tests::gpu(), made.source(), LoadOptions::default(), |_| ()));
        let want = logits_of(&model.expect("loads"));
        assert_close(name, &logits(&convert(made.source(), made.config())), &want, 1e-4, 0.0);
    }
}

#[test]
fn tensors_that_would_be_left_out_are_named() {
    for (model, tensor) in [
        ("llama-a", "output.bias"),
        ("llama-b", "blk.0.attn_sinks.weight"),
        ("qwen2-a", "blk.1.attn_output.bias"),
        ("qwen2-b", "blk.0.ffn_down.bias"),
        ("llama-c", "blk.0.attn_q_norm.weight"),
        ("llama-d", "blk.2.attn_norm.weight"),
        ("qwen3-a", "cls_out.weight"),
    ] {
        let mut file = plain(model);
        file.vector(tensor, &[0.25; 64]);
        let error = try_load(&file).expect_err(tensor);
        let LoadError::UnusedTensors { tensors, .. } = &error else { panic!("{tensor}: {error}") };
        assert_eq!(tensors.len(), 1, "{tensor}: {tensors:?}");
    }
}

/// What llama.cpp takes where a key is absent.
#[test]
fn keys_that_are_absent() {
    let without = |model: &'static str, keys: &[&str]| {
        let mut file = plain(model);
        file.metadata.retain(|(key, _)| !keys.iter().any(|k| key.ends_with(k)));
        file
    };
    let caps = ["attn_logit_softcapping", "final_logit_softcapping", "sliding_window"];
    let gemma = config(&without("gemma2-x", &caps)).expect("a config");
    assert_eq!((gemma.attn_logit_softcapping, gemma.final_logit_softcapping), (Some(50.0), Some(30.0)));
    assert_eq!((gemma.layer_window(0), gemma.layer_window(1)), (Some(4096), None));
    let gemma = config(&without("gemma3_text-x", &caps)).expect("a config");
    assert_eq!((gemma.final_logit_softcapping, gemma.layer_window(0)), (None, None));
    let granite = without("granite-x", &["attention.scale", "residual_scale"]);
    assert!(config(&granite).expect_err("no logit scale").to_string().contains("logit_scale"));
    let mut granite = granite;
    granite.set("granite.logit_scale", Value::Float(8.0));
    assert_eq!(config(&granite).expect("a config").attention_scale(), 0.25);
    let smollm = config(&without("smollm3-x", &["freq_base"])).expect("a config");
    assert_eq!(smollm.layer_rope(0).map(|r| r.rope_theta), Some(1e4));
    let eps = config(&without("llama-x", &["epsilon"])).expect_err("no epsilon");
    assert!(eps.to_string().contains("llama.attention.layer_norm_rms_epsilon is absent"), "{eps}");
    // A factor without a type is linear.
    let (mut typed, mut bare) = (plain("llama-y"), plain("llama-y"));
    typed.set("llama.rope.scaling.type", Value::String("linear".into()));
    for file in [&mut typed, &mut bare] {
        file.set("llama.rope.scaling.factor", Value::Float(4.0));
    }
    let (typed, bare) = (config(&typed).expect("a config"), config(&bare).expect("a config"));
    assert_eq!(typed.rope, bare.rope);
    assert_ne!(bare.rope, config(&plain("llama-y")).expect("a config").rope);
}

/// A window makes another model of OLMo 2 and of Llama; which layers have it is a list or a period.
#[test]
fn windows_of_families_that_hold_several_models() {
    let with = |pattern: Option<Value>| {
        let mut file = plain("olmo2-x");
        file.set("olmo2.attention.sliding_window", Value::Uint(8));
        file.set("olmo2.block_count", Value::Uint(6));
        file.set("olmo2.rope.scaling.type", Value::String("yarn".into()));
        file.set("olmo2.rope.scaling.factor", Value::Float(4.0));
        if let Some(pattern) = pattern {
            file.set("olmo2.attention.sliding_window_pattern", pattern);
        }
        let config = config(&file).expect("a config");
        let windows: Vec<bool> = (0..6).map(|i| config.layer_window(i) == Some(8)).collect();
        (config, windows)
    };
    let (config, windows) = with(None);
    assert_eq!((config.model_type.as_str(), windows), ("olmo3", vec![true, true, true, false, true, true]));
    let [sliding, full] = [0, 3].map(|i| config.layer_rope(i).expect("rotates").clone());
    assert_eq!(sliding.rope_theta, full.rope_theta);
    assert_ne!(sliding.scaling, full.scaling);
    assert_eq!(with(Some(Value::Uint(2))).1, [true, false, true, false, true, false]);
    let list = vec![false, true, true, true, false, false];
    assert_eq!(with(Some(Value::Array(Array::Bool(list.clone())))).1, list);
    assert_eq!(self::config(&plain("olmo2-y")).expect("a config").model_type, "olmo2");
}

/// What changes the attention and is not built in.
#[test]
fn other_kinds_of_attention_are_refused() {
    for (model, key, value) in [
        ("llama-x", "llama.attention.causal", Value::Bool(false)),
        ("llama-x", "llama.attention.scale", Value::Float(0.5)),
        ("gemma2-x", "gemma2.attention.scale", Value::Float(1e-30)),
        ("granite-x", "granite.rope.scaling.finetuned", Value::Bool(false)),
    ] {
        let mut file = plain(model);
        file.set("granite.logit_scale", Value::Float(8.0));
        file.set(key, value);
        let error = config(&file).expect_err(key).to_string();
        assert!(error.contains(key), "{error}");
    }
    let mut usual = plain("llama-x");
    usual.set("llama.attention.scale", Value::Float(0.25));
    config(&usual).expect("the usual scale");
}

/// Counts that overflow when they are multiplied, tensors without elements, biases in blocks.
#[test]
fn numbers_that_no_model_can_have() {
    let file = plain("llama-x");
    for key in [
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.attention.key_length",
        "llama.block_count",
        "llama.embedding_length",
        "llama.context_length",
        "llama.rope.dimension_count",
    ] {
        for value in [0, 1, 3, u64::from(u32::MAX), 1 << 32, 1 << 62, 1 << 63, u64::MAX] {
            let mut file = file.clone();
            file.set(key, Value::Uint(value));
            let opened = config(&file);
            if value >= u64::from(u32::MAX) {
                assert!(opened.is_err(), "{key} = {value}");
            }
        }
    }
    let mut empty = file.clone();
    let q = empty.tensors.iter_mut().find(|t| t.name == "blk.0.attn_q.weight").expect("a matrix");
    (q.shape, q.bytes) = (vec![64, 0], Vec::new());
    assert!(try_load(&empty).is_err());
    let mut blocks = file;
    let (name, shape) = ("blk.0.attn_q.bias".to_owned(), vec![64]);
    let bytes = girih_tests::gguf::blocks(GgufType::Q4_0, 2, 1);
    blocks.tensors.push(girih_tests::gguf::Tensor { name, ty: GgufType::Q4_0, shape, bytes });
    assert!(try_load(&blocks).is_err());
}

fn parts(list: &[(String, Vec<u8>)]) -> MemorySource {
    list.iter().fold(MemorySource::new(), |source, (name, bytes)| source.with(name, bytes.clone()))
}

fn open(source: MemorySource, file: &str) -> Result<GgufSource, LoadError> {
    block_on(GgufSource::open(Arc::new(source), file, KNOWN.gguf))
}

/// Any part, or the folder, stands for all of them.
#[test]
fn files_in_parts() {
    let whole = plain("llama-x");
    let want = logits(&whole);
    let split = whole.split("m", 3);
    for (name, _) in &split {
        let source: Arc<dyn ByteSource> = Arc::new(open(parts(&split), name).expect(name));
        let model = block_on(Model::load(&girih_tests::gpu(), source, LoadOptions::default(), |_| ()));
        assert_eq!(logits_of(&model.expect(name)), want, "{name}");
    }
    let folder = block_on(checkpoint(Arc::new(parts(&split)), KNOWN.gguf)).expect("the parts of one file");
    assert_eq!(folder.tensors().expect("a table").len(), whole.tensors.len());

    let mut two = split.clone();
    two.push(("other.gguf".into(), whole.bytes(3)));
    let error = block_on(checkpoint(Arc::new(parts(&two)), KNOWN.gguf)).expect_err("two models").to_string();
    assert!(error.contains("other.gguf") && error.contains("m-00001-of-00003.gguf"), "{error}");
}

#[test]
fn parts_that_do_not_belong_together() {
    let whole = plain("llama-x");
    let split = whole.split("m", 3);
    let error = |list: &[(String, Vec<u8>)], file: &str| open(parts(list), file).expect_err(file);
    let missing = error(&[split[0].clone(), split[2].clone()], "m-00001-of-00003.gguf");
    assert!(matches!(&missing, LoadError::NoFile { file } if file == "m-00002-of-00003.gguf"), "{missing}");
    let renamed = ("m.gguf".to_owned(), split[0].1.clone());
    assert!(error(&[renamed], "m.gguf").to_string().contains("m.gguf: split.count is"));
    let swapped = [
        split[0].clone(),
        (split[1].0.clone(), split[2].1.clone()),
        (split[2].0.clone(), split[1].1.clone()),
    ];
    assert!(error(&swapped, &split[0].0).to_string().contains("split.no"));
    let mut fewer = whole.clone();
    fewer.tensors.pop();
    let mixed = [split[0].clone(), split[1].clone(), fewer.split("m", 3)[2].clone()];
    assert!(error(&mixed, &split[0].0).to_string().contains("split.tensors.count"));
    let twice = [
        split[0].clone(),
        (split[1].0.clone(), {
            let mut part = File::default();
            part.tensors.push(whole.tensors[0].clone());
            part.set("split.no", Value::Uint(1));
            part.set("split.count", Value::Uint(3));
            part.bytes(3)
        }),
        split[2].clone(),
    ];
    assert!(matches!(error(&twice, &split[0].0), LoadError::Duplicate { .. }));
}

/// A message quotes the beginning of a value, however long that is.
#[test]
fn long_values_are_not_formatted() {
    let mut file = plain("llama-x");
    file.set("llama.block_count", Value::Array(Array::String(vec!["x".repeat(1 << 16); 64])));
    let message = config(&file).expect_err("no number").to_string();
    assert!(message.len() < 500 && message.contains("block_count"), "{} bytes", message.len());
}
