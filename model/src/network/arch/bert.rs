//! BERT and the sentence encoders of its shape (MiniLM, BGE, E5).

use girih_ops::Act;

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Rotation};
use crate::network::config::{HiddenAct, Config};
use crate::network::layers::{
    Attention, AttentionSpec, Encoder, EncoderLayer, HeadNorm, Linear, Modules, Norm, Scope,
};

pub(super) const CLASS: Class = Class {
    name: "Bert",
    vocab_size: 30_522,
    hidden_size: 768,
    intermediate_size: 3072,
    layers: 12,
    heads: 12,
    max_position_embeddings: 512,
    eps: 1e-12,
    act: "gelu",
    tie: true,
    biases: [Bias::Fixed(true); 3],
    rotation: Rotation::None,
    type_vocab_size: 2,
    refused_flags: &["use_bidirectional_attention", "is_decoder", "add_cross_attention"],
    pad_token_id: Some(0),
    ..Class::DECODER
};

pub(super) const GGUF: Family = Family { encoder: true, ..Family::named("bert") };

pub(super) async fn load(w: &Scope, cfg: &Config) -> Result<Encoder, LoadError> {
    let w = &w.scope(&prefix(w));
    let (c, f) = (cfg.hidden_size, cfg.intermediate_size);
    let norm = async |w: &Scope, name: &str| Norm::layer(&w.scope(name), c, cfg.layer_norm_eps, true).await;
    let spec = AttentionSpec {
        hidden_size: c,
        num_q_heads: cfg.num_attention_heads,
        num_kv_heads: cfg.num_attention_heads,
        head_dim: cfg.head_dim,
        scale: cfg.attention_scale(),
        window: None,
        softcap: None,
        rope: None,
        causal: false,
        qkv_bias: true,
        o_bias: true,
        qk_norm: HeadNorm::None,
        plus_one: false,
        eps: cfg.layer_norm_eps,
        clip_qkv: None,
        sinks: false,
    };
    let act = match cfg.hidden_act {
        HiddenAct::Silu => Act::Silu,
        HiddenAct::Gelu => Act::GeluErf,
        HiddenAct::GeluTanh => Act::GeluTanh,
        HiddenAct::Relu => Act::Relu,
    };
    let mut layers = Vec::new();
    for i in 0..cfg.num_hidden_layers {
        let w = w.scope(&format!("encoder.layer.{i}"));
        let attention = w.scope("attention");
        let qkv = Modules::Concat(&["self.query", "self.key", "self.value"]);
        layers.push(EncoderLayer {
            attn: Attention::load_named(&attention, spec.clone(), qkv, "output.dense").await?,
            attn_norm: norm(&attention, "output.LayerNorm").await?,
            up: Linear::load(&w, Modules::Concat(&["intermediate.dense"]), [f, c], true).await?,
            act,
            down: Linear::load(&w, Modules::Concat(&["output.dense"]), [c, f], true).await?,
            mlp_norm: norm(&w, "output.LayerNorm").await?,
        });
    }
    let table =
        async |name: &str, rows| w.scope("embeddings").matrix(&format!("{name}.weight"), rows, c).await;
    Ok(Encoder {
        words: table("word_embeddings", cfg.vocab_size).await?,
        positions: table("position_embeddings", cfg.max_position_embeddings).await?,
        segments: table("token_type_embeddings", cfg.type_vocab_size).await?,
        norm: norm(&w.scope("embeddings"), "LayerNorm").await?,
        layers,
        pooler: if w.has("pooler.dense.weight") {
            Some(Linear::load(w, Modules::Concat(&["pooler.dense"]), [c, c], true).await?)
        } else {
            None
        },
    })
}

/// Where the encoder is: at the top, below `bert` in models with a task of their own, or below the one name that holds
/// embeddings of words.
fn prefix(w: &Scope) -> String {
    const WORDS: &str = "embeddings.word_embeddings.weight";
    let known = ["", "bert"].into_iter().find(|prefix| w.scope(prefix).has(WORDS));
    if let Some(known) = known {
        return known.to_owned();
    }
    let mut found = w.weights().table().iter().filter_map(|t| t.name.strip_suffix(WORDS)?.strip_suffix('.'));
    match (found.next(), found.next()) {
        (Some(only), None) => only.to_owned(),
        _ => String::new(),
    }
}
