//! Qwen 2 and 1.5 MoE: Qwen 2 with mixtures of experts, beside each a network that all tokens go through, times the
//! sigmoid of a logit.

use girih_ops::moe::Router;
use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata};
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Shared, Slides, Sparse};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{Decoder, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "Qwen2Moe",
    vocab_size: 151_936,
    hidden_size: 2048,
    intermediate_size: 5632,
    layers: 24,
    heads: 16,
    kv_heads: Some(16),
    max_position_embeddings: 32_768,
    biases: [Bias::Named("qkv_bias", true), Bias::Fixed(false), Bias::Fixed(false)],
    slides: Slides::AlternateBelow(28),
    sliding_window: Some(4096),
    experts: Some(Experts {
        count: (&["num_experts", "num_local_experts"], 60),
        per_token: (&["num_experts_per_tok"], 4),
        width: Some(1408),
        layers: Sparse::Step,
        shared: Shared::Width("shared_expert_intermediate_size", 5632),
        ..Experts::MIXTRAL
    }),
    ..Class::DECODER
};

const ROUTER: Router = SOFTMAX;

const NAMES: MixtureNames = MixtureNames { shared_gate: Some("shared_expert_gate"), ..MixtureNames::QWEN };

pub(super) const GGUF: Family = Family {
    block: &[
        ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
        ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
        ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
    ],
    mixture: true,
    fields,
    ..Family::named("qwen2moe")
};

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    let shared = m.uint("expert_shared_feed_forward_length")?;
    if let Some(width) = shared {
        config.insert("shared_expert_intermediate_size".to_owned(), width.into());
    }
    config.insert("qkv_bias".to_owned(), m.has("blk.0.attn_q.bias").into());
    // As in llama.cpp, whatever the model's own configuration said.
    config.insert("norm_topk_prob".to_owned(), false.into());
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.mixture_blocks(1.0, |spec| spec, &|all, layer| {
        MixtureSpec::new(b.cfg, layer, Router { normalise: all.normalise(0.0), ..ROUTER }, NAMES)
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}
