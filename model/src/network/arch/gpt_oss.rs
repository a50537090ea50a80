//! gpt-oss: mixtures of experts in every layer, with biases everywhere; a clamped activation; each head has a logit that
//! takes part in the softmax without a value; windows in every second layer.

use girih_ops::GluAct;
use girih_ops::moe::{Router, Score, Weight};
use serde_json::Value;

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Slides};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::{SOFTMAX, StackLayout};
use crate::network::layers::{AttentionSpec, Decoder, MixtureNames, MixtureSpec};
use crate::network::rope::RopeScaling;

pub(super) const CLASS: Class = Class {
    name: "GptOss",
    vocab_size: 201_088,
    hidden_size: 2880,
    intermediate_size: 2880,
    layers: 36,
    heads: 64,
    kv_heads: Some(8),
    head_dim: Some(64),
    max_position_embeddings: 131_072,
    eps: 1e-5,
    biases: [Bias::Configured(true), Bias::Configured(true), Bias::Fixed(false)],
    theta: 150_000.0,
    scaling: || RopeScaling::Yarn {
        factor: 32.0,
        original_max_position_embeddings: 4096.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: None,
        mscale: None,
        mscale_all_dim: None,
        truncate: false,
    },
    slides: Slides::Alternate,
    sliding_window: Some(128),
    experts: Some(Experts {
        count: (&["num_local_experts", "num_experts"], 128),
        per_token: (&["num_experts_per_tok"], 4),
        swiglu: Some([7.0, 1.702]),
        ..Experts::MIXTRAL
    }),
    ..Class::DECODER
};

const ROUTER: Router = Router { score: Score::Logit, weight: Weight::Softmax, ..SOFTMAX };

const NAMES: MixtureNames =
    MixtureNames { router: "router", layout: StackLayout::Transposed, ..MixtureNames::QWEN };

pub(super) const GGUF: Family = Family {
    block: &[
        ("attn_sinks.weight", "self_attn.sinks"),
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_gate_inp", "mlp.router"),
        ("ffn_gate_exps.bias", "mlp.experts.gate_proj_bias"),
        ("ffn_up_exps.bias", "mlp.experts.up_proj_bias"),
        ("ffn_down_exps.bias", "mlp.experts.down_proj_bias"),
    ],
    mixture: true,
    fields: |m, config| {
        // No key says that windows alternate; without a window there are none.
        if m.window.is_none() {
            let full = vec![Value::from("full_attention"); m.layers.min(1 << 16) as usize];
            config.insert("layer_types".to_owned(), full.into());
        }
        // No key says that the bounds of the correction are not rounded.
        if let Some(Value::Object(scaling)) = config.get_mut("rope_scaling") {
            scaling.insert("truncate".to_owned(), false.into());
        }
        Ok(())
    },
    ..Family::named("gpt-oss")
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    // Of the class, where the configuration says nothing.
    let [cap, alpha] = b.cfg.experts.as_ref().and_then(|experts| experts.swiglu).unwrap_or([7.0, 1.702]);
    let act = GluAct::SwiGluOai { alpha, cap };
    let spec = |spec| AttentionSpec { sinks: true, ..spec };
    let blocks = b.mixture_blocks(1.0, spec, &|_, layer| {
        let spec = MixtureSpec::new(b.cfg, layer, ROUTER, NAMES);
        MixtureSpec { act, router_bias: true, bias: true, ..spec }
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}
