//! Configurations.

use girih_model::network::arch::MODEL_TYPES;
use girih_model::run::pooling::Pooling;
use girih_model::{Config, EmbeddingConfig, GenerationConfig, Prompt};
use pollster::block_on;

use super::{Target, bounded, source};

/// Fields and values of `config.json`.
const FIELDS: &[&str] = &[
    "model_type",
    "architectures",
    "text_config",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rope_type",
    "type",
    "yarn",
    "llama3",
    "longrope",
    "dynamic",
    "linear",
    "factor",
    "short_factor",
    "long_factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "mscale",
    "partial_rotary_factor",
    "layer_types",
    "sliding_attention",
    "full_attention",
    "sliding_window",
    "sliding_window_pattern",
    "no_rope_layers",
    "hidden_act",
    "silu",
    "gelu_pytorch_tanh",
    "rms_norm_eps",
    "layer_norm_eps",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "eos_token_id",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "quantization_config",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_topk",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "n_shared_experts",
    "mlp_only_layers",
    "decoder_sparse_step",
    "first_k_dense_replace",
    "moe_layer_end_index",
    "n_group",
    "topk_group",
    "scoring_func",
    "swiglu_limit",
];

/// The same, and all values of `model_type`.
const CONFIG_WORDS: [&str; FIELDS.len() + MODEL_TYPES.len()] = {
    let mut words = [""; FIELDS.len() + MODEL_TYPES.len()];
    let mut i = 0;
    while i < words.len() {
        words[i] = if i < FIELDS.len() { FIELDS[i] } else { MODEL_TYPES[i - FIELDS.len()] };
        i += 1;
    }
    words
};

/// `config.json`, and what is derived from it.
pub const CONFIG: Target = Target {
    name: "config",
    only: Some("config.json"),
    words: &CONFIG_WORDS,
    run: |input| match bounded(Config::parse(input.file("config.json").unwrap_or_default()))? {
        Some(config) => derive(&config),
        None => Ok(()),
    },
};

/// `generation_config.json` beside `config.json`.
pub const GENERATION_CONFIG: Target = Target {
    name: "generation_config",
    only: None,
    words: &[
        "eos_token_id",
        "bos_token_id",
        "pad_token_id",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "max_length",
        "max_new_tokens",
        "suppress_tokens",
        "bad_words_ids",
        "stop_strings",
        "transformers_version",
    ],
    run: |input| {
        let parsed = Config::parse(input.file("config.json").unwrap_or_default());
        let Some(config) = bounded(parsed)? else { return Ok(()) };
        bounded(block_on(GenerationConfig::load(&*source(input), &config)))?;
        Ok(())
    },
};

/// The files that sentence-transformers puts beside a model.
pub const SENTENCE_TRANSFORMERS: Target = Target {
    name: "sentence_transformers",
    only: None,
    words: &[
        "modules.json",
        "1_Pooling/config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "idx",
        "name",
        "path",
        "type",
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
        "sentence_transformers.models.Normalize",
        "pooling_mode_mean_tokens",
        "pooling_mode_cls_token",
        "pooling_mode_lasttoken",
        "pooling_mode_max_tokens",
        "pooling_mode",
        "word_embedding_dimension",
        "max_seq_length",
        "do_lower_case",
        "prompts",
        "default_prompt_name",
        "include_prompt",
        "query",
        "../",
    ],
    run: |input| {
        let source = source(input);
        let plain = br#"{"model_type": "bert", "vocab_size": 9, "max_position_embeddings": 512}"#;
        let Some(config) = bounded(Config::parse(input.file("config.json").unwrap_or(plain)))? else {
            return Ok(());
        };
        if let Some(embedding) = bounded(block_on(EmbeddingConfig::load(&*source, &config)))? {
            for prompt in [Prompt::Default, Prompt::Named("query"), Prompt::Text("a: ")] {
                bounded(embedding.prompts.text(prompt))?;
            }
        }
        let Some(pooling) = bounded(block_on(Pooling::load(&*source)))? else { return Ok(()) };
        for prompt in [0, 1, 2, 9] {
            let _ = pooling.apply(&[1.0, 0.0, 2.0, f32::MAX, 0.5, -1.0], 2, prompt);
        }
        Ok(())
    },
};

/// Layers and positions that are looked at.
const FEW: usize = 64;

/// What loading derives from a configuration: sizes, frequencies, windows.
pub fn derive(config: &Config) -> Result<(), String> {
    let _ = (config.attention_scale(), config.output_scale());
    let _ = [1, config.max_context, u32::MAX]
        .map(|tokens| [false, true].map(|f16| config.cache_bytes(tokens, f16)));
    for layer in (0..FEW).chain([usize::MAX]) {
        let _ = config.layer_window(layer);
        let Some(rope) = config.layer_rope(layer) else { continue };
        let _ = (rope.scaled_length(), rope.depends_on_length());
        let dim = rope.rotary_dim(config.head_dim);
        for len in [None, Some(1), Some(config.max_context), Some(u32::MAX)] {
            if let Some(frequencies) = bounded(rope.frequencies(dim, len))? {
                let _ = frequencies.cos_sin(u32::MAX);
            }
        }
        if layer > 2 && config.rope_sliding.is_none() {
            break; // the others have the same
        }
    }
    Ok(())
}
