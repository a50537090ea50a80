//! Hunyuan A13B: mixtures of experts in every layer, beside each a network of the same width that all tokens go through;
//! norms of query and key heads behind the rotary embedding.

use girih_ops::moe::{Normalise, Router};

use crate::checkpoint::format::gguf::Family;
use crate::error::LoadError;
use crate::network::config::class::{Bias, Class, Experts, Shared};
use crate::network::layers::build::Build;
use crate::network::layers::mixture::SOFTMAX;
use crate::network::layers::{AttentionSpec, Decoder, HeadNorm, MixtureNames, MixtureSpec};

pub(super) const CLASS: Class = Class {
    name: "HunYuanMoEV1",
    vocab_size: 290_943,
    eps: 1e-5,
    biases: [Bias::Configured(false), Bias::Configured(false), Bias::Fixed(false)],
    experts: Some(Experts {
        count: (&["num_experts", "num_local_experts"], 1),
        per_token: (&["moe_topk", "num_experts_per_tok"], 1),
        shared: Shared::One,
        ..Experts::MIXTRAL
    }),
    bos_token_id: Some(1),
    eos_token_ids: &[2],
    pad_token_id: Some(0),
    ..Class::DECODER
};

const ROUTER: Router = Router { normalise: Normalise::Sum { eps: 0.0 }, ..SOFTMAX };

const NAMES: MixtureNames =
    MixtureNames { router: "gate.wg", shared: "shared_mlp", ..MixtureNames::QWEN };

pub(super) const GGUF: Family = Family {
    block: &[
        ("attn_q_norm", "self_attn.query_layernorm"),
        ("attn_k_norm", "self_attn.key_layernorm"),
        ("ffn_gate_inp", "mlp.gate.wg"),
        ("ffn_gate_shexp", "mlp.shared_mlp.gate_proj"),
        ("ffn_up_shexp", "mlp.shared_mlp.up_proj"),
        ("ffn_down_shexp", "mlp.shared_mlp.down_proj"),
    ],
    mixture: true,
    ..Family::named("hunyuan-moe")
};

pub(super) async fn load(b: &Build<'_>) -> Result<Decoder, LoadError> {
    let spec = |spec| AttentionSpec { qk_norm: HeadNorm::PerHeadRotated, ..spec };
    let blocks = b.mixture_blocks(1.0, spec, &|_, layer| MixtureSpec::new(b.cfg, layer, ROUTER, NAMES)).await?;
    b.decoder(blocks, b.rms(&b.weights, "norm").await?).await
}
