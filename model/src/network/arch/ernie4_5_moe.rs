//! ERNIE 4.5 MoE: mixtures of experts in a range of layers, with a bias of the choice, beside them a network that all
//! tokens go through; interleaved rotary embedding.

use girih_ops::moe::{Normalise, Router};
use serde_json::{Map, Value};

use crate::checkpoint::format::gguf::{Family, Metadata};
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Shared, Sparse};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{AttentionSpec, Decoder, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "Ernie4_5_Moe",
    vocab_size: 103_424,
    hidden_size: 2560,
    intermediate_size: 12_288,
    layers: 28,
    heads: 20,
    kv_heads: Some(4),
    max_position_embeddings: 131_072,
    eps: 1e-5,
    tie: true,
    biases: [Bias::Named("use_bias", false); 3],
    theta: 500_000.0,
    experts: Some(Experts {
        count: (&["moe_num_experts", "num_experts"], 64),
        per_token: (&["moe_k", "num_experts_per_tok"], 6),
        width: Some(1536),
        layers: Sparse::Range(1),
        shared: Shared::Times("moe_num_shared_experts", 2),
        norm_min: Some(1e-12),
        ..Experts::MIXTRAL
    }),
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    pad_token_id: Some(0),
    ..Class::DECODER
};

/// `moe_norm_min` takes the place of the least divisor.
const ROUTER: Router = Router { normalise: Normalise::AtLeast { least: 1e-12 }, ..SOFTMAX };

const NAMES: MixtureNames = MixtureNames {
    choice_bias: Some("moe_statics.e_score_correction_bias"),
    shared: "shared_experts",
    ..MixtureNames::QWEN
};

pub(super) const GGUF: Family = Family {
    block: &[("exp_probs_b.bias", "mlp.moe_statics.e_score_correction_bias")],
    mixture: true,
    fields,
    ..Family::named("ernie4_5-moe")
};

fn fields(m: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), LoadError> {
    // The projections of the attention have biases together or not at all; those of experts have none.
    config.insert("use_bias".to_owned(), m.has("blk.0.attn_q.bias").into());
    for (key, field) in [
        ("leading_dense_block_count", "moe_layer_start_index"),
        ("interleave_moe_layer_step", "moe_layer_interval"),
    ] {
        if let Some(n) = m.uint(key)? {
            config.insert(field.to_owned(), n.into());
        }
    }
    let width = m.uint("expert_feed_forward_length")?.unwrap_or(0);
    let shared = m.uint("expert_shared_feed_forward_length")?;
    let count = match (shared, m.uint("expert_shared_count")?) {
        (Some(shared), _) if width > 0 && shared.is_multiple_of(width) => Some(shared / width),
        (Some(_), _) => {
            let want = format!("a multiple of expert_feed_forward_length ({width})");
            return Err(m.bad("expert_shared_feed_forward_length", &want));
        }
        (None, count) => count,
    };
    if let Some(count) = count {
        config.insert("moe_num_shared_experts".to_owned(), count.into());
    }
    Ok(())
}

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let blocks = b.mixture_blocks(1.0, AttentionSpec::interleaved, &|all, layer| {
        let router = Router { normalise: Normalise::AtLeast { least: all.norm_min }, ..ROUTER };
        let shared_bias = b.cfg.mlp_bias;
        MixtureSpec { shared_bias, ..MixtureSpec::new(b.cfg, layer, router, NAMES) }
    }).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}
