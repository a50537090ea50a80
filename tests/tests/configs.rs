//! Configurations: both styles of every golden model give the same; sparse ones give what transformers makes of them.

use girih_model::Config;
use girih_model::network::arch::MODEL_TYPES;
use girih_model::network::config::{HiddenAct, LayerType};
use girih_model::network::rope::{RopeParameters, RopeScaling};
use girih_tests::goldens;
use serde_json::{Value, json};

#[test]
fn both_styles_agree() {
    let mut count = 0;
    for folder in goldens::folders("models") {
        let read = |file: &str| std::fs::read(folder.join(file)).ok();
        let (Some(main), Some(alt)) = (read("config.json"), read("config.alt.json")) else { continue };
        let [a, b] = [&main, &alt].map(|bytes| Config::parse(bytes));
        let name = folder.display();
        match (a, b) {
            (Ok(mut a), Ok(mut b)) => {
                a.raw.clear();
                b.raw.clear();
                assert_eq!(a, b, "{name}");
                count += 1;
            }
            (Err(a), Err(b)) => {
                let message = a.to_string();
                assert_eq!(message, b.to_string(), "{name}");
                assert!(
                    !MODEL_TYPES.iter().any(|m| message.contains(&format!("is \"{m}\""))),
                    "{name}: {message}"
                );
            }
            (a, b) => panic!("{name}: only one style is read: {a:?} {b:?}"),
        }
    }
    goldens::counted("models: in two styles", count);
}

#[test]
fn layers_of_the_golden_models() {
    let sliding = |model: &str| {
        let path = goldens::dir().join("models").join(model).join("config.json");
        let config =
            Config::parse(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        let config = config.unwrap_or_else(|e| panic!("{model}: {e}"));
        let slides = config.layer_types.iter().map(|t| *t == LayerType::Sliding).collect::<Vec<_>>();
        (slides, config.sliding_window, config.uses_rope)
    };
    assert_eq!(sliding("gemma2"), (vec![true, false, true, false], Some(12), vec![true; 4]));
    assert_eq!(sliding("gemma3_text"), (vec![true, true, false, true], Some(10), vec![true; 4]));
    assert_eq!(sliding("qwen2"), (vec![false, true, true], Some(24), vec![true; 3]));
    assert_eq!(sliding("mistral_swa_f16"), (vec![true; 3], Some(16), vec![true; 3]));
    assert_eq!(sliding("smollm3"), (vec![false; 4], None, vec![true, true, true, false]));
}

/// Values of a configuration under the names and in the form of the golden table.
fn described(config: &Config, name: &str) -> Value {
    let rope = |r: &RopeParameters| {
        let mut params = match r.scaling {
            RopeScaling::Default => json!({"rope_type": "default"}),
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                beta_fast,
                beta_slow,
                truncate,
                ..
            } => json!({
                "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                "truncate": truncate, "original_max_position_embeddings": original_max_position_embeddings,
            }),
            _ => panic!("{name}: a scaling that the table does not have"),
        };
        params["rope_theta"] = json!(r.rope_theta);
        params["partial_rotary_factor"] = json!(r.partial_rotary_factor);
        params
    };
    let kind = |t: &LayerType| match t {
        LayerType::Full => "full_attention",
        LayerType::Sliding => "sliding_attention",
        LayerType::Linear => "linear_attention",
    };
    let act = match config.hidden_act {
        HiddenAct::Silu => "silu",
        HiddenAct::Gelu => "gelu",
        HiddenAct::GeluTanh => "gelu_pytorch_tanh",
        HiddenAct::Relu => "relu",
    };
    let experts = config.experts.as_ref().map(|experts| {
        let layer = experts.layers.iter().flatten().next();
        json!({
            "count": layer.map(|l| l.count), "per_token": layer.map(|l| l.per_token),
            "intermediate_size": layer.map(|l| l.intermediate_size),
            "shared_intermediate_size": layer.map(|l| l.shared_intermediate_size),
            "layers": experts.layers.iter().map(|l| u32::from(l.is_some())).collect::<Vec<_>>(),
            "norm_topk_prob": experts.norm_topk_prob, "moe_norm_min": experts.norm_min,
            "n_group": experts.groups[0], "topk_group": experts.groups[1],
            "routed_scaling_factor": experts.scale, "router_jitter_noise": experts.jitter,
            "swiglu_limit": experts.swiglu.map(|s| s[0]), "swiglu_alpha": experts.swiglu.map(|s| s[1]),
        })
    });
    let latent = config.latent.map(|latent| {
        json!({
            "q_lora_rank": latent.q_rank, "kv_lora_rank": latent.rank, "qk_nope_head_dim": latent.nope_dim,
            "qk_rope_head_dim": latent.rope_dim, "v_head_dim": latent.value_dim,
            "rope_interleave": latent.interleaved,
        })
    });
    let eps = if matches!(config.model_type.as_str(), "bert" | "cohere") {
        config.layer_norm_eps
    } else {
        config.rms_norm_eps
    };
    json!({
        "model_type": config.model_type, "vocab_size": config.vocab_size, "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size, "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads, "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim, "activation": act, "eps": eps,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings, "attention_bias": config.attention_bias,
        "mlp_bias": config.mlp_bias, "attn_logit_softcapping": config.attn_logit_softcapping,
        "final_logit_softcapping": config.final_logit_softcapping,
        "query_pre_attn_scalar": config.query_pre_attn_scalar,
        "embedding_multiplier": config.embedding_multiplier, "residual_multiplier": config.residual_multiplier,
        "attention_multiplier": config.attention_multiplier, "logits_scaling": config.logits_scaling,
        "logit_scale": config.logit_scale, "use_qk_norm": config.use_qk_norm,
        "clip_qkv": config.clip_qkv, "experts": experts, "latent": latent, "normed_residual": config.normed_residual,
        "type_vocab_size": config.type_vocab_size,
        "no_rope_layers": config.uses_rope.iter().map(|&r| u32::from(r)).collect::<Vec<_>>(),
        "sliding_window": config.sliding_window,
        "layer_types": config.layer_types.iter().map(kind).collect::<Vec<_>>(),
        "rope_parameters": match &config.rope_sliding {
            None => rope(&config.rope),
            Some(sliding) => {
                json!({"full_attention": rope(&config.rope), "sliding_attention": rope(sliding)})
            }
        },
        "bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_ids,
        "pad_token_id": config.pad_token_id,
    })
}

/// Numbers are equal if they are to f32; a token and a list of one are the same; a share of 1 need not be stated.
fn agree(field: &str, got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().map(|v| v as f32) == b.as_f64().map(|v| v as f32),
        (Value::Object(a), Value::Object(b)) => {
            let one = json!(1.0);
            let stated = |b: &serde_json::Map<String, Value>, key: &String| {
                b.get(key).cloned().unwrap_or(if key == "partial_rotary_factor" {
                    one.clone()
                } else {
                    Value::Null
                })
            };
            // The old name of the type is kept beside the one it has now.
            b.keys().all(|key| a.contains_key(key) || key == "type")
                && a.iter()
                    .filter(|(key, _)| field != "experts" || b.contains_key(*key))
                    .all(|(key, v)| agree(key, v, &stated(b, key)))
        }
        (Value::Array(a), Value::Null) => field == "eos_token_id" && a.is_empty(),
        (Value::Array(a), Value::Number(_)) => a.len() == 1 && agree(field, &a[0], want),
        (a, b) => a == b,
    }
}

/// The values that the classes of transformers assume, those that are derived from others, and those that stand at the
/// top of a multimodal configuration.
#[test]
fn sparse_configurations_are_completed_as_in_transformers() {
    let table: Value = serde_json::from_str(include_str!("../goldens/configs/classes.json")).expect("JSON");
    goldens::counted("configs/classes", table["cases"].as_array().expect("cases").len());
    let mut empty = std::collections::BTreeSet::new();
    for case in table["cases"].as_array().expect("cases") {
        let name = case["name"].as_str().expect("a name");
        let text = case["config"].to_string();
        let config = Config::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let got = described(&config, name);
        for (field, want) in case["transformers"].as_object().expect("values") {
            // Classes without windows in some layers state no types; a window that no layer has does not count.
            let unstated = field == "layer_types" && want.is_null();
            let idle = field == "sliding_window" && config.sliding_window.is_none();
            let slides = config.layer_types.contains(&LayerType::Sliding);
            assert!(
                unstated || (idle && !slides) || agree(field, &got[field], want),
                "{name}: {field} is {}, must be {want}",
                got[field]
            );
        }
        if name.ends_with(": empty") {
            empty.insert(config.model_type);
        }
    }
    // Not among the classes of transformers.
    empty.insert("pangu_pro_moe".to_owned());
    assert_eq!(empty, MODEL_TYPES.iter().map(|m| (*m).to_owned()).collect());
}
