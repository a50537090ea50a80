//! Defaults, forms and what no model can have.

use super::*;
use crate::network::arch::MODEL_TYPES;

fn base(model: &str) -> Map<String, Value> {
    let json = serde_json::json!({"model_type": model, "vocab_size": 100, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4});
    json.as_object().cloned().unwrap_or_default()
}

#[allow(clippy::needless_pass_by_value)]
fn with(model: &str, fields: Value) -> Result<Config, LoadError> {
    let mut map = base(model);
    map.extend(fields.as_object().cloned().unwrap_or_default());
    Config::parse(&serde_json::to_vec(&map).unwrap_or_default())
}

#[test]
fn every_known_model_has_defaults() {
    for &model in MODEL_TYPES {
        let config = with(model, serde_json::json!({"num_key_value_heads": null})).expect(model);
        assert_eq!(config.layer_types.len(), 6);
    }
    let error = with("parrot", serde_json::json!({})).expect_err("unknown");
    assert!(error.to_string().contains("qwen3") && error.to_string().contains("parrot"));
}

#[test]
fn what_no_model_can_have_is_named() {
    for (json, field) in [
        (r#"{"num_hidden_layers": 1000000000000}"#, "num_hidden_layers"),
        (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers"),
        (r#"{"num_hidden_layers": -1}"#, "num_hidden_layers"),
        (r#"{"num_hidden_layers": null}"#, "num_hidden_layers"),
        (r#"{"num_attention_heads": 0}"#, "num_attention_heads"),
        (r#"{"num_attention_heads": 3}"#, "hidden_size"),
        (r#"{"num_key_value_heads": 3}"#, "num_key_value_heads"),
        (r#"{"head_dim": 0}"#, "head_dim"),
        (r#"{"head_dim": 31}"#, "rope_parameters.rotary channels"),
        (r#"{"hidden_act": "swoosh"}"#, "hidden_act"),
        (r#"{"hidden_size": "64"}"#, "hidden_size"),
        (r#"{"vocab_size": 1e30}"#, "vocab_size"),
        (r#"{"rms_norm_eps": -1}"#, "rms_norm_eps"),
        (r#"{"rms_norm_eps": "tiny"}"#, "rms_norm_eps"),
        (r#"{"tie_word_embeddings": 1}"#, "tie_word_embeddings"),
        (r#"{"rope_theta": 0}"#, "rope_theta"),
        (r#"{"rope_scaling": 4}"#, "rope_scaling"),
        (r#"{"rope_scaling": {"type": "mrope"}}"#, "rope_parameters.rope_type"),
        (r#"{"partial_rotary_factor": 0}"#, "partial_rotary_factor"),
        (r#"{"eos_token_id": "x"}"#, "eos_token_id"),
    ] {
        let error = with("llama", serde_json::from_str(json).expect("JSON")).expect_err(json);
        assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
    }
    for (model, json, field) in [
        ("granite", r#"{"attention_multiplier": 0}"#, "attention_multiplier"),
        ("qwen2", "{}", "num_key_value_heads"),
        ("gemma3_text", r#"{"use_bidirectional_attention": true}"#, "use_bidirectional_attention"),
        ("bert", r#"{"is_decoder": true}"#, "is_decoder"),
    ] {
        let error = with(model, serde_json::from_str(json).expect("JSON")).expect_err(json);
        assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
    }
    let error = with("gemma2", serde_json::json!({"sliding_window": null})).expect_err("no window");
    assert!(matches!(error, LoadError::Config { field, .. } if field == "sliding_window"));
    let error = with("qwen3", serde_json::json!({"use_sliding_window": true, "layer_types": ["x"]}));
    assert!(error.is_err());
    for text in [&b"[]"[..], b"{}", b"", b"null", b"{\"model_type\": 3}"] {
        assert!(Config::parse(text).is_err());
    }
}

/// What transformers 5 does where fields are absent or belong to another family.
#[test]
fn defaults_are_those_of_the_family() {
    let read = |model: &str, json| with(model, json).expect(model);
    for (model, kv_heads) in [("gemma2", 4), ("glm4", 2), ("smollm3", 4), ("llama", 4), ("phi3", 4)] {
        assert_eq!(read(model, serde_json::json!({})).num_key_value_heads, kv_heads, "{model}");
    }
    // SmolLM3's window is on the layers that do not rotate.
    let windows = serde_json::json!({"use_sliding_window": true, "sliding_window": 8});
    let config = read("smollm3", windows);
    let windows: Vec<Option<u32>> = (0..6).map(|i| config.layer_window(i)).collect();
    assert_eq!(windows, [None, None, None, Some(8), None, None]);
    assert_eq!(config.uses_rope, [true, true, true, false, true, true]);
    let stray = serde_json::json!({"logits_scaling": 3, "attention_multiplier": 2, "logit_scale": 5,
        "embedding_multiplier": 7, "query_pre_attn_scalar": 9, "final_logit_softcapping": 4});
    let config = read("llama", stray);
    assert_eq!(
        (config.output_scale(), config.embedding_multiplier, config.attention_scale()),
        (1.0, 1.0, 0.25)
    );
    assert_eq!(config.final_logit_softcapping, None);
    assert!(read("glm4", serde_json::json!({})).attention_bias);
    // The trained length beside a scaling goes before the one within.
    let scaled = serde_json::json!({"original_max_position_embeddings": 64, "rope_scaling": {
        "type": "yarn", "factor": 2, "original_max_position_embeddings": 32}});
    let RopeScaling::Yarn { original_max_position_embeddings, .. } = read("llama", scaled).rope.scaling
    else {
        panic!("yarn")
    };
    assert_eq!(original_max_position_embeddings, 64.0);
}

#[test]
fn tokens_in_every_form() {
    let ids = serde_json::json!({"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": -1});
    let config = with("llama", ids).expect("valid");
    assert_eq!((config.bos_token_id, config.eos_token_ids, config.pad_token_id), (Some(1), vec![2, 3], None));
}

#[test]
fn nested_text_config() {
    let nested = serde_json::json!({"model_type": "gemma3", "eos_token_id": 7, "text_config": {
        "model_type": "gemma3_text", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 6, "num_attention_heads": 4, "x": 1}});
    let config = Config::parse(nested.to_string().as_bytes()).expect("valid");
    assert_eq!((config.model_type.as_str(), config.eos_token_ids.as_slice()), ("gemma3_text", &[7][..]));
    assert!(config.raw.contains_key("x") && config.tie_word_embeddings);
    let full: Vec<usize> = (0..6).filter(|&i| config.layer_types[i] == LayerType::Full).collect();
    assert_eq!(full, [5]);
    let thetas = [0, 5].map(|i| config.layer_rope(i).map(|r| r.rope_theta));
    assert_eq!(thetas, [Some(1e4), Some(1e6)]);
}

/// Multimodal models that are not what their text part's name suggests, or have none.
#[test]
fn wrappers_that_cannot_be_read_are_named() {
    for (json, field) in [
        (r#"{"model_type": "paligemma", "text_config": {"model_type": "gemma2"}}"#, "model_type"),
        (r#"{"model_type": "llava"}"#, "text_config"),
        (r#"{"model_type": "llava", "text_config": null}"#, "text_config"),
        (r#"{"model_type": "llava", "text_config": [1]}"#, "text_config"),
        (r#"{"model_type": "qwen2", "text_config": 3}"#, "text_config"),
        (
            r#"{"model_type": "x", "text_config": {"model_type": "qwen2", "rope_scaling": {"type": "mrope"}}}"#,
            "rope_parameters.rope_type",
        ),
    ] {
        let error = Config::parse(json.as_bytes()).expect_err(json);
        assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
    }
    for (json, name) in [
        (r#"{"model_type": "qwen2_5_vl", "hidden_size": 64}"#, "qwen2_5_vl"),
        (
            r#"{"model_type": "qwen2_5_vl", "text_config": {"model_type": "qwen2_5_vl_text"}}"#,
            "qwen2_5_vl_text",
        ),
        (r#"{"model_type": "parrot_vl", "text_config": {"hidden_size": 64}}"#, "parrot_vl"),
        (r#"{"model_type": 7}"#, "7"),
    ] {
        let error = Config::parse(json.as_bytes()).expect_err(json);
        assert!(matches!(&error, LoadError::UnknownModel { got, .. } if got == name), "{json}: {error}");
    }
}

#[test]
fn forms_in_which_fields_are_published() {
    let whole = serde_json::json!({"max_position_embeddings": 32768.0, "vocab_size": 1e3, "rope_theta": 1e6,
        "eos_token_id": [2.0], "torch_dtype": "torch.bfloat16"});
    let config = with("llama", whole).expect("whole numbers with a fraction of zero");
    assert_eq!((config.max_position_embeddings, config.vocab_size), (32768, 1000));
    assert_eq!((config.eos_token_ids, config.dtype.as_deref()), (vec![2], Some("bfloat16")));
    for (model, json, field) in [
        ("llama", r#"{"max_position_embeddings": 32768.5}"#, "max_position_embeddings"),
        ("llama", r#"{"max_position_embeddings": "32768"}"#, "max_position_embeddings"),
        ("llama", r#"{"rope_theta": "1e6"}"#, "rope_theta"),
        ("llama", r#"{"vocab_size": null}"#, "vocab_size"),
        ("qwen3", r#"{"num_key_value_heads": 2, "head_dim": null}"#, "head_dim"),
        ("gemma3_text", r#"{"sliding_window_pattern": 0}"#, "sliding_window_pattern"),
    ] {
        let error = with(model, serde_json::from_str(json).expect("JSON")).expect_err(json);
        assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
    }
    // Bare tokens that are no JSON are not taken for an absent field.
    for token in ["NaN", "Infinity", "-Infinity"] {
        let text = format!(r#"{{"model_type": "llama", "rope_theta": {token}}}"#);
        let error = Config::parse(text.as_bytes()).expect_err(token);
        let LoadError::Config { field, got, .. } = &error else { panic!("{token}: {error}") };
        assert!(field == "rope_theta" && got.contains(token), "{error}");
    }
}

#[test]
fn a_missing_type_is_told_by_the_architecture() {
    for (architecture, model) in [
        ("LlamaForCausalLM", "llama"),
        ("Gemma3ForCausalLM", "gemma3_text"),
        ("BertModel", "bert"),
        ("Qwen2MoeForCausalLM", "qwen2_moe"),
        ("Qwen2ForSequenceClassification", "qwen2"),
    ] {
        let json = serde_json::json!({"architectures": [architecture]});
        let config = Config::parse(json.to_string().as_bytes()).expect(architecture);
        assert_eq!(config.model_type, model);
    }
    for architecture in ["Llama4ForCausalLM", "Qwen2AudioForCausalLM", "Gemma3nForCausalLM", "BertX", ""] {
        let json = serde_json::json!({"architectures": [architecture]});
        let error = Config::parse(json.to_string().as_bytes()).expect_err(architecture);
        assert!(matches!(error, LoadError::UnknownModel { .. }), "{error}");
    }
}

#[test]
fn how_long_a_sequence_may_be() {
    let limit = |model: &str, json| with(model, json).expect(model).max_context;
    let yarn = |extra: Value| {
        let mut scaling = serde_json::json!({"type": "yarn", "factor": 4.0});
        scaling.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        serde_json::json!({"max_position_embeddings": 32, "rope_scaling": scaling, "num_key_value_heads": 4})
    };
    let original = serde_json::json!({"original_max_position_embeddings": 32});
    // As the cards of Qwen 2.5 and 3 say, with and without the trained length.
    assert_eq!(limit("qwen2", yarn(original)), 128);
    assert_eq!(limit("qwen2", yarn(serde_json::json!({}))), 128);
    // Both lengths stated: the longer one.
    let stated = serde_json::json!({"original_max_position_embeddings": 4});
    assert_eq!(limit("qwen3", yarn(stated)), 32);
    let linear = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"type": "linear",
        "factor": 2.5}});
    assert_eq!(limit("llama", linear.clone()), 160);
    // Gemma 3's length has the scaling in it.
    assert_eq!(limit("gemma3_text", linear), 64);
    let llama3 = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"rope_type": "llama3",
        "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}});
    assert_eq!(limit("llama", llama3), 64);
    let dynamic = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"type": "dynamic",
        "factor": 2.0}});
    assert_eq!(limit("llama", dynamic), 64);
    let absurd = serde_json::json!({"max_position_embeddings": 1 << 30, "rope_scaling": {"type": "linear",
        "factor": 1e12}});
    assert_eq!(limit("llama", absurd), u32::MAX);
    // Positions of an encoder are rows of a table, whatever is scaled.
    let table = serde_json::json!({"max_position_embeddings": 64, "rope_scaling": {"type": "linear",
        "factor": 2.0}});
    assert_eq!(limit("bert", table), 64);
}

#[test]
fn sizes_do_not_overflow() {
    let most = serde_json::json!({"num_hidden_layers": 4096, "num_attention_heads": 4096,
        "num_key_value_heads": 4096, "head_dim": 4096});
    let config = with("llama", most).expect("valid");
    assert_eq!(config.cache_bytes(u32::MAX, false), u64::MAX);
    assert_eq!(config.cache_bytes(1, false), 1 << 39);
}

/// Numbers of experts under every name, in every layer.
#[test]
fn mixtures_of_experts() {
    let read = |model: &str, json| with(model, json).expect(model);
    for (model, counts, per_tokens) in [
        ("mixtral", &["num_local_experts", "num_experts"][..], &["num_experts_per_tok"][..]),
        ("qwen3_moe", &["num_experts", "num_local_experts"], &["num_experts_per_tok"]),
        ("glm4_moe", &["n_routed_experts", "num_local_experts"], &["num_experts_per_tok"]),
        ("ernie4_5_moe", &["moe_num_experts", "num_experts"], &["moe_k", "num_experts_per_tok"]),
        ("hunyuan_v1_moe", &["num_experts", "num_local_experts"], &["moe_topk", "num_experts_per_tok"]),
    ] {
        for (count, per_token) in counts.iter().flat_map(|c| per_tokens.iter().map(move |k| (*c, *k))) {
            let config = read(
                model,
                serde_json::json!({count: 12, per_token: 3, "num_key_value_heads": 4, "head_dim": 16}),
            );
            let last = config.layer_experts(5).expect("experts");
            assert_eq!((last.count, last.per_token), (12, 3), "{model}: {count}, {per_token}");
        }
    }
    assert_eq!(read("llama", serde_json::json!({"num_experts": 8})).experts, None);
    // A list for each layer.
    let lists = serde_json::json!({"num_experts": [4, 4, 8, 8, 8, 8], "moe_topk": [1, 2, 1, 2, 3, 8]});
    let config = read("hunyuan_v1_moe", lists);
    let layers: Vec<_> =
        (0..6).filter_map(|i| config.layer_experts(i)).map(|l| (l.count, l.per_token)).collect();
    assert_eq!(layers, [(4, 1), (4, 2), (8, 1), (8, 2), (8, 3), (8, 8)]);
    let is_mixture = |config: &Config| (0..6).map(|i| config.layer_experts(i).is_some()).collect::<Vec<_>>();
    let step = serde_json::json!({"decoder_sparse_step": 2, "mlp_only_layers": [3]});
    assert_eq!(is_mixture(&read("qwen3_moe", step)), [false, true, false, false, false, true]);
    let none = serde_json::json!({"first_k_dense_replace": 9, "num_key_value_heads": 4});
    assert_eq!(is_mixture(&read("glm4_moe", none)), [false; 6]);
    let range = serde_json::json!({"moe_layer_start_index": 0, "moe_layer_end_index": 3,
        "moe_layer_interval": 2, "moe_num_shared_experts": 0});
    let config = read("ernie4_5_moe", range);
    assert_eq!(is_mixture(&config), [false, true, false, true, false, false]);
    assert_eq!(config.layer_experts(1).and_then(|l| l.shared_intermediate_size), None);
}

#[test]
fn experts_that_no_model_can_have_are_named() {
    for (model, json, field) in [
        ("mixtral", r#"{"num_local_experts": 0}"#, "num_local_experts"),
        ("mixtral", r#"{"num_local_experts": "8"}"#, "num_local_experts"),
        ("mixtral", r#"{"num_local_experts": 2, "num_experts_per_tok": 3}"#, "num_experts_per_tok"),
        ("mixtral", r#"{"num_experts_per_tok": 0}"#, "num_experts_per_tok"),
        ("hunyuan_v1_moe", r#"{"num_experts": 4, "moe_topk": [1, 2]}"#, "moe_topk"),
        ("hunyuan_v1_moe", r#"{"num_experts": 4, "moe_topk": [1, 2, 1, 2, 1, 5]}"#, "moe_topk"),
        ("hunyuan_v1_moe", r#"{"num_experts": [4, 4, 4, 4, 4, 0]}"#, "num_experts"),
        ("qwen2_moe", r#"{"moe_intermediate_size": null}"#, "moe_intermediate_size"),
        ("qwen2_moe", r#"{"shared_expert_intermediate_size": -1}"#, "shared_expert_intermediate_size"),
        ("qwen2_moe", r#"{"mlp_only_layers": 3}"#, "mlp_only_layers"),
        ("qwen2_moe", r#"{"mlp_only_layers": [-1]}"#, "mlp_only_layers"),
        ("qwen2_moe", r#"{"decoder_sparse_step": 0}"#, "decoder_sparse_step"),
        ("qwen2_moe", r#"{"norm_topk_prob": 1}"#, "norm_topk_prob"),
        ("glm4_moe", r#"{"n_group": 7}"#, "n_group"),
        ("glm4_moe", r#"{"n_group": 128}"#, "n_group"),
        ("glm4_moe", r#"{"n_group": 8, "topk_group": 9}"#, "topk_group"),
        ("glm4_moe", r#"{"n_group": 64, "topk_group": 3}"#, "topk_group"),
        ("glm4_moe", r#"{"scoring_func": "tanh"}"#, "scoring_func"),
        ("glm4_moe", r#"{"scoring_func": 1}"#, "scoring_func"),
        ("glm4_moe", r#"{"routed_scaling_factor": 0}"#, "routed_scaling_factor"),
        ("glm4_moe", r#"{"first_k_dense_replace": -1}"#, "first_k_dense_replace"),
        ("glm4_moe", r#"{"n_shared_experts": 65536, "moe_intermediate_size": 65536}"#, "n_shared_experts"),
        ("ernie4_5_moe", r#"{"moe_layer_interval": 0}"#, "moe_layer_interval"),
        ("ernie4_5_moe", r#"{"moe_layer_end_index": -2}"#, "moe_layer_end_index"),
        ("gpt_oss", r#"{"swiglu_limit": -7}"#, "swiglu_limit"),
        ("olmoe", r#"{"clip_qkv": 0}"#, "clip_qkv"),
        ("pangu_pro_moe", r#"{"num_experts": 10, "num_experts_per_tok": 4}"#, "num_experts_per_tok"),
        ("deepseek_v3", r#"{"kv_lora_rank": 0}"#, "kv_lora_rank"),
        ("deepseek_v3", r#"{"kv_lora_rank": null}"#, "kv_lora_rank"),
        ("deepseek_v3", r#"{"q_lora_rank": -1}"#, "q_lora_rank"),
        ("deepseek_v3", r#"{"qk_rope_head_dim": 63}"#, "qk_rope_head_dim"),
        ("deepseek_v3", r#"{"qk_nope_head_dim": "128"}"#, "qk_nope_head_dim"),
        ("deepseek_v3", r#"{"v_head_dim": 1e9}"#, "v_head_dim"),
        ("deepseek_v3", r#"{"rope_interleave": 1}"#, "rope_interleave"),
    ] {
        let mut fields = serde_json::json!({"num_key_value_heads": 4});
        let stated: Value = serde_json::from_str(json).expect("JSON");
        fields.as_object_mut().expect("an object").extend(stated.as_object().expect("an object").clone());
        let error = with(model, fields).expect_err(json);
        assert!(matches!(&error, LoadError::Config { field: f, .. } if f == field), "{json}: {error}");
    }
}

#[test]
fn pangu_calls_its_type_as_its_class() {
    let config = with("PanguProMoE", serde_json::json!({"num_key_value_heads": 4})).expect("valid");
    assert_eq!(config.model_type, "pangu_pro_moe");
    assert_eq!(config.layer_experts(0).map(|l| (l.count, l.per_token)), Some((64, 8)));
}

/// The cache holds a latent and a rotated key of each token; scores are warmer by both magnitudes of yarn.
#[test]
fn latent_attention() {
    let config = with("deepseek_v3", serde_json::json!({"num_hidden_layers": 3})).expect("valid");
    assert_eq!(config.cache_bytes(10, false), 3 * 10 * (512 + 64) * 4);
    assert_eq!((config.num_key_value_heads, config.head_dim), (config.num_attention_heads, 64));
    let plain = 1.0 / 192f32.sqrt();
    assert!((config.attention_scale() - plain).abs() < 1e-7);
    let yarn = serde_json::json!({"rope_scaling": {"type": "yarn", "factor": 40.0, "mscale": 1.0,
        "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096}});
    let warmer = with("deepseek_v3", yarn).expect("valid").attention_scale() / plain;
    assert!((warmer - (1.0 + 0.1 * 40f32.ln()).powi(2)).abs() < 1e-5, "{warmer}");
    let direct = with("deepseek_v3", serde_json::json!({"q_lora_rank": null})).expect("valid");
    assert_eq!(direct.latent.map(|latent| latent.q_rank), Some(None));
}

/// Hunyuan calls a larger theta dynamic, Phi 3.5 MoE has factors of cosine and sine for each list.
#[test]
fn scalings_of_models_with_experts() {
    let alpha = serde_json::json!({"rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0}});
    let config = with("hunyuan_v1_moe", alpha).expect("valid");
    let got = config.rope.frequencies(16, None).expect("frequencies");
    let theta = 10_000.0 * 50f64.powf(16.0 / 14.0);
    let plain = RopeParameters { rope_theta: theta, scaling: RopeScaling::Default, ..config.rope };
    assert_eq!(got, plain.frequencies(16, None).expect("frequencies"));
    let ones = [1.0; 8];
    let mscale = serde_json::json!({"num_key_value_heads": 4, "rope_scaling": {"type": "longrope",
        "short_factor": ones, "long_factor": ones, "short_mscale": 1.25, "long_mscale": 1.5,
        "original_max_position_embeddings": 32}});
    let config = with("phimoe", mscale).expect("valid");
    let factor = |len| config.rope.frequencies(16, Some(len)).expect("frequencies").attention_factor;
    assert_eq!((factor(32), factor(33)), (1.25, 1.5));
}
