//! What the configuration class of an architecture assumes where a file is silent. The values stand with the
//! architectures, in `arch/<model_type>.rs`.

use girih_ops::moe::Score;

use super::latent::Latent;
use crate::network::rope::RopeScaling;

/// Fields of a configuration class and their defaults, as transformers has them.
///
/// They matter wherever a configuration is saved as the difference from its class: nested ones (`text_config`) always
/// are.
#[derive(Clone, Debug)]
pub(crate) struct Class {
    /// What the names of its models begin with: `Llama` of `LlamaForCausalLM`.
    pub name: &'static str,
    pub vocab_size: u32,
    pub hidden_size: u32,
    pub intermediate_size: u32,
    pub layers: u32,
    pub heads: u32,
    /// `None`: as many as query heads.
    pub kv_heads: Option<u32>,
    /// `None`: the hidden size divided by the query heads.
    pub head_dim: Option<u32>,
    pub max_position_embeddings: u32,
    /// Whether `max_position_embeddings` counts the positions that a linear scaling adds.
    pub scaling_included: bool,
    /// Trained length where a scaling states none; it has precedence over that of the scaling.
    pub original_max_position_embeddings: Option<u32>,
    /// Of RMS norms and layer norms.
    pub eps: f64,
    /// Field that names the activation.
    pub act_field: &'static str,
    pub act: &'static str,
    /// Whether `gelu` in a file means the formula with tanh.
    pub gelu_is_tanh: bool,
    pub tie: bool,
    /// Whether embeddings are multiplied by the square root of the hidden size.
    pub root_of_hidden: bool,
    /// Biases of q, k and v; of the attention's output; of the MLP.
    pub biases: [Bias; 3],
    pub theta: f64,
    /// Scaling where the file states none.
    pub scaling: fn() -> RopeScaling,
    /// Rotary embedding of sliding layers.
    pub local_rope: LocalRope,
    /// Rotated share of a head.
    pub partial: f64,
    pub rotation: Rotation,
    pub slides: Slides,
    /// Window of the layers that slide.
    pub sliding_window: Option<u32>,
    /// Bounds of scores and logits, for classes that have them.
    pub softcaps: Option<[Option<f32>; 2]>,
    /// For classes that have it.
    pub query_pre_attn_scalar: Option<f32>,
    /// Whether the class has the four factors of granite; they are 1.
    pub multipliers: bool,
    /// For classes that have it.
    pub logit_scale: Option<f32>,
    /// Whether the class has `use_qk_norm`; it is false.
    pub qk_norm_flag: bool,
    /// Segments; 0: the class has none.
    pub type_vocab_size: u32,
    /// Whether the class has `clip_qkv`; it is none.
    pub clips_qkv: bool,
    /// Whether some layers have lightning attention, and all add to norms in place of the residual stream.
    pub lightning: bool,
    /// For classes with multi-head latent attention.
    pub latent: Option<Latent>,
    /// For classes with mixtures of experts.
    pub experts: Option<Experts>,
    /// Flags that ask for another attention than the one that is built in.
    pub refused_flags: &'static [&'static str],
    pub bos_token_id: Option<u32>,
    pub eos_token_ids: &'static [u32],
    pub pad_token_id: Option<u32>,
    /// Multimodal models whose text part is of this class where that does not say.
    pub wrappers: &'static [Wrapper],
}

/// A class and the `model_type` that names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub model_type: &'static str,
    pub class: &'static Class,
}

/// A multimodal model with a text part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrapper {
    pub model_type: &'static str,
    /// `tie_word_embeddings` where nothing states it. It is the wrapper's to say.
    pub tie: bool,
}

/// Wrappers whose head is no embedding unless they say so.
pub(crate) const fn untied(model_type: &'static str) -> Wrapper {
    Wrapper { model_type, tie: false }
}

/// Wrappers whose head is the embedding unless they say otherwise.
pub(crate) const fn tied(model_type: &'static str) -> Wrapper {
    Wrapper { model_type, tie: true }
}

/// Whether a projection has a bias.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bias {
    /// The class has a field for it (`attention_bias`, `mlp_bias`), with this default.
    Configured(bool),
    /// The same under another name.
    Named(&'static str, bool),
    /// Whatever the file says.
    Fixed(bool),
}

impl Bias {
    const fn fixed(self) -> Option<bool> {
        match self {
            Self::Configured(_) | Self::Named(..) => None,
            Self::Fixed(bias) => Some(bias),
        }
    }
}

/// The rotary embedding of sliding layers where `rope_parameters` does not state one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LocalRope {
    /// That of all layers.
    Shared,
    /// The base of all layers without their scaling.
    Unscaled,
    /// A base of its own (`rope_local_base_freq`), with this default, without scaling.
    Base(f64),
}

/// Which layers rotate queries and keys.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rotation {
    All,
    /// Positions are embedded otherwise.
    None,
    /// All but every n-th: `no_rope_layer_interval`, `no_rope_layers`.
    Interval(u32),
}

/// Which layers have a sliding window where `layer_types` does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slides {
    Never,
    /// All, if there is a window.
    All,
    /// All but every n-th: `sliding_window_pattern`.
    Pattern(u32),
    /// All but every second, whatever the file says.
    Alternate,
    /// With `use_sliding_window`: all.
    Used,
    /// With `use_sliding_window`: those from `max_window_layers` on.
    From(u32),
    /// With `use_sliding_window`: every second of those below `max_window_layers`.
    AlternateBelow(u32),
    /// With `use_sliding_window`: those that do not rotate.
    Unrotated,
}

/// What a class with mixtures of experts assumes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Experts {
    /// Fields that may hold the number of experts, and its default. The first that is there counts.
    pub count: (&'static [&'static str], u32),
    /// The same of the experts that a token goes to.
    pub per_token: (&'static [&'static str], u32),
    /// Default of `moe_intermediate_size`; `None`: the class has none, experts have `intermediate_size`.
    pub width: Option<u32>,
    /// Which layers have experts.
    pub layers: Sparse,
    /// The network that all tokens go through.
    pub shared: Shared,
    /// Default of `norm_topk_prob`, for classes that have it.
    pub norm_topk_prob: bool,
    /// Whether a token takes one expert of each of as many groups as it has experts.
    pub even_groups: bool,
    /// Defaults of `n_group` and `topk_group`, and of `routed_scaling_factor`, for classes that have them.
    pub groups: Option<([u32; 2], f32)>,
    /// Default of `scoring_func`, for classes that have it.
    pub score: Option<Score>,
    /// Default of `moe_norm_min`, for classes that have it.
    pub norm_min: Option<f32>,
    /// Default of `router_jitter_noise`, for classes whose choice depends on it.
    pub jitter: Option<f32>,
    /// Defaults of `swiglu_limit` and `swiglu_alpha`, for classes that have them.
    pub swiglu: Option<[f32; 2]>,
}

impl Experts {
    /// Experts of `intermediate_size` in every layer, 2 of 8: the values of Mixtral.
    pub const MIXTRAL: Self = Self {
        count: (&["num_local_experts", "num_experts"], 8),
        per_token: (&["num_experts_per_tok"], 2),
        width: None,
        layers: Sparse::All,
        shared: Shared::None,
        norm_topk_prob: false,
        even_groups: false,
        groups: None,
        score: None,
        norm_min: None,
        jitter: None,
        swiglu: None,
    };
}

/// Which layers have experts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sparse {
    All,
    /// Every `decoder_sparse_step`-th (each, if it is absent) that is not among `mlp_only_layers`.
    Step,
    /// Those from `first_k_dense_replace` on, with this default.
    From(u32),
    /// Every `moe_layer_interval`-th (each, if it is absent) from `moe_layer_start_index`, with this default, to
    /// `moe_layer_end_index`; absent and -1: to the last.
    Range(u32),
}

/// Width of the network beside the experts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shared {
    /// There is none.
    None,
    /// The field's, with this default.
    Width(&'static str, u32),
    /// That of an expert, times the field's number, with this default.
    Times(&'static str, u32),
    /// That of an expert.
    One,
}

impl Class {
    /// What decoders have in common unless they say otherwise: the values of Llama.
    pub const DECODER: Self = Self {
        name: "Llama",
        vocab_size: 32_000,
        hidden_size: 4096,
        intermediate_size: 11_008,
        layers: 32,
        heads: 32,
        kv_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        scaling_included: false,
        original_max_position_embeddings: None,
        eps: 1e-6,
        act_field: "hidden_act",
        act: "silu",
        gelu_is_tanh: false,
        tie: false,
        root_of_hidden: false,
        biases: [Bias::Configured(false), Bias::Configured(false), Bias::Fixed(false)],
        theta: 10_000.0,
        scaling: || RopeScaling::Default,
        local_rope: LocalRope::Shared,
        partial: 1.0,
        rotation: Rotation::All,
        slides: Slides::Never,
        sliding_window: None,
        softcaps: None,
        query_pre_attn_scalar: None,
        multipliers: false,
        logit_scale: None,
        qk_norm_flag: false,
        clips_qkv: false,
        lightning: false,
        latent: None,
        experts: None,
        type_vocab_size: 0,
        refused_flags: &[],
        bos_token_id: None,
        eos_token_ids: &[],
        pad_token_id: None,
        wrappers: &[],
    };

    /// [`Class::biases`] that are there or not whatever a file says.
    pub const fn fixed_biases(&self) -> [Option<bool>; 3] {
        let [qkv, output, mlp] = self.biases;
        [qkv.fixed(), output.fixed(), mlp.fixed()]
    }

    /// Whether a model of that name has this configuration class: `LlamaForCausalLM`, `LlamaModel`.
    pub fn is_of(&self, architecture: &str) -> bool {
        architecture
            .strip_prefix(self.name)
            .is_some_and(|rest| rest == "Model" || rest.starts_with("For") || rest == "LMHeadModel")
    }
}
