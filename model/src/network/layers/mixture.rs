//! Mixture of experts: a router sends each token to a few of many gated networks.

use std::sync::{Arc, OnceLock};

use girih_ops::kernels::matmul::gemv::MAX_M;
use girih_ops::moe::{self, Router, RouterVectors, Score};
use girih_ops::{Elsewhere, Frame, GluAct, Linear as Fusion, Matrix, OpError, Tensor};

use super::build::glu;
use super::{ExpertSource, Linear, Mlp, Norm, Residual, Scope, Stream};
use crate::checkpoint::weights::ExpertRows;
use crate::error::LoadError;
use crate::network::config::{Config, LayerExperts};
use crate::network::experts::{ExpertCache, FEW_TOKENS, Offered, Prefetch};

/// Softmax over all experts, weights as they come: what the routers of most families differ from.
pub const SOFTMAX: Router = Router {
    experts: 0,
    k: 0,
    score: Score::Softmax,
    groups: moe::Groups::Any,
    choose: moe::Choose::Best,
    weight: moe::Weight::Score,
    bias_in_weight: false,
    weightless: 0,
    normalise: moe::Normalise::None,
    scale: 1.0,
};

/// What distinguishes the mixture of one layer from another's.
#[derive(Clone, Copy, Debug)]
pub struct MixtureSpec {
    /// C.
    pub hidden_size: u32,
    /// Channels between the projections of an expert.
    pub intermediate_size: u32,
    /// The same of the network that all tokens go through beside the experts; `None` if there is none.
    pub shared_intermediate_size: Option<u32>,
    /// From logits to experts and weights.
    pub router: Router,
    /// Activation of the gates.
    pub act: GluAct,
    /// The router has a bias.
    pub router_bias: bool,
    /// The projections of the experts have biases.
    pub bias: bool,
    /// The projections of the shared network have biases.
    pub shared_bias: bool,
    /// Where they are.
    pub names: MixtureNames,
}

impl MixtureSpec {
    /// What the configuration says, with the router of a family and its names. No biases.
    pub fn new(cfg: &Config, experts: &LayerExperts, router: Router, names: MixtureNames) -> Self {
        Self {
            hidden_size: cfg.hidden_size,
            intermediate_size: experts.intermediate_size,
            shared_intermediate_size: experts.shared_intermediate_size,
            router: Router { experts: experts.count, k: experts.per_token, ..router },
            act: glu(cfg.hidden_act),
            router_bias: false,
            bias: false,
            shared_bias: false,
            names,
        }
    }
}

/// Names of a checkpoint's parts of a mixture, below the layer or, but for the first, below the mixture.
#[derive(Clone, Copy, Debug)]
pub struct MixtureNames {
    /// The mixture.
    pub scope: &'static str,
    /// Module of the router.
    pub router: &'static str,
    /// Tensor that is added to the scores for the choice alone.
    pub choice_bias: Option<&'static str>,
    /// Tensor with a factor of the weight of each expert.
    pub expert_scale: Option<&'static str>,
    /// Gate, up and down of an expert: `experts.N.gate_proj.weight`, or stacked `experts.gate_proj.weight`.
    pub experts: [&'static str; 3],
    /// Tensors of all experts with gate and up in one, then down.
    pub stacked: [&'static str; 2],
    /// How those lie.
    pub layout: StackLayout,
    /// The shared network.
    pub shared: &'static str,
    /// Module of the gate of the shared network: its sigmoid is a factor of what that gives.
    pub shared_gate: Option<&'static str>,
}

impl MixtureNames {
    /// Those of Qwen.
    pub const QWEN: Self = Self {
        scope: "mlp",
        router: "gate",
        choice_bias: None,
        expert_scale: None,
        experts: ["gate_proj", "up_proj", "down_proj"],
        stacked: ["experts.gate_up_proj", "experts.down_proj"],
        layout: StackLayout::Halves,
        shared: "shared_expert",
        shared_gate: None,
    };
    /// Those of Mixtral.
    pub const MIXTRAL: Self = Self { scope: "block_sparse_moe", experts: ["w1", "w3", "w2"], ..Self::QWEN };
}

/// How tensors of all experts lie that hold gate and up in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackLayout {
    /// `[E, 2I, C]`, gate rows first, and `[E, C, I]`.
    Halves,
    /// `[E, C, 2I]`, gate and up alternately, and `[E, I, C]`; quantised ones `[E, 2I, C]` and `[E, C, I]` (gpt-oss).
    Transposed,
}

/// `Σ_j w_j · expert_j(x)` over the experts that the router chooses for a token, plus a network that all tokens share.
#[derive(Clone, Debug)]
pub struct Mixture {
    router: Linear,
    spec: Router,
    /// Added to the scores for the choice `[E]`.
    bias: Option<Tensor>,
    /// Factors of the experts `[E]`.
    expert_scale: Option<Tensor>,
    experts: Held,
    act: GluAct,
    shared: Option<Shared>,
    /// Names under which logits and routes are noted.
    notes: [String; 2],
    /// Name under which what gate and up are given is noted, where that of the router will not do.
    input_note: Option<String>,
    /// Name under which what the products with down are given is noted.
    down_note: String,
    /// Where the experts lie in the checkpoint; `None` if they are no experts there.
    source: Option<ExpertSource>,
}

/// Where the experts are.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one for a layer, mostly of the larger kind")]
enum Held {
    /// On the device: gate and up, then down.
    Here { matrices: [Matrix; 2], biases: [Option<Tensor>; 2] },
    /// In a cache, where the mixture has this number. The gate of the one behind it, once there is one, tells what to read.
    Cached { cache: Arc<ExpertCache>, mixture: usize, next: Arc<OnceLock<Gate>> },
}

impl Held {
    /// Loads them, or tells the cache of them. Names and shapes of gate and up, then down.
    async fn load(
        w: &Scope,
        rows: [ExpertRows<'_>; 2],
        shapes: [[u32; 3]; 2],
        biases: [Option<Vec<f32>>; 2],
        per_token: u32,
    ) -> Result<Self, LoadError> {
        let (weights, gpu) = (w.weights(), w.gpu());
        let ([gate_up, down], [gate_up_shape, down_shape]) = (rows, shapes);
        if let Some(cache) = w.experts() {
            let sources = [
                weights.expert_reader(gpu, gate_up, gate_up_shape).await?,
                weights.expert_reader(gpu, down, down_shape).await?,
            ];
            let layer = layer_of(&weights.full(""));
            let mixture = cache.offer(Offered { layer, sources, biases, per_token });
            return Ok(Self::Cached { cache: cache.clone(), mixture, next: Arc::default() });
        }
        let place = |values: &Option<Vec<f32>>| values.as_deref().map(|v| w.place_apart(v)).transpose();
        Ok(Self::Here {
            matrices: [
                weights.experts(gpu, gate_up, gate_up_shape).await?,
                weights.experts(gpu, down, down_shape).await?,
            ],
            biases: [place(&biases[0])?, place(&biases[1])?],
        })
    }

    fn parts(&self) -> Option<(&[Matrix; 2], &[Option<Tensor>; 2])> {
        match self {
            Self::Here { matrices, biases } => Some((matrices, biases)),
            Self::Cached { cache, mixture, .. } => cache.places(*mixture),
        }
    }
}

/// What chooses experts.
#[derive(Clone, Debug)]
struct Gate {
    router: Linear,
    spec: Router,
    bias: Option<Tensor>,
    expert_scale: Option<Tensor>,
}

impl Gate {
    /// What it would choose of what another router is given.
    fn routes(&self, frame: &mut Frame, x: &Tensor, norm: Option<&Norm>) -> Result<Tensor, OpError> {
        let fused = Fusion { norm: norm.map(Norm::prologue), ..Fusion::default() };
        let logits = self.router.forward(frame, x, fused)?; // [T, E]
        let vectors =
            RouterVectors { bias: self.bias.as_ref(), expert_scale: self.expert_scale.as_ref(), table: None };
        moe::route(frame, &logits, &self.spec, vectors) // [T, K, 2]
    }
}

/// The index of a layer in the name of something below it: `model.layers.3.mlp`.
fn layer_of(name: &str) -> u32 {
    name.split('.').find_map(|step| step.parse().ok()).unwrap_or(0)
}

/// The network that all tokens go through.
#[derive(Clone, Debug)]
enum Shared {
    /// As it is.
    Plain(Mlp),
    /// Times the sigmoid of a logit: a mixture of one expert, whose matrices are linear layers of the checkpoint.
    Gated(Box<Mixture>, [Linear; 2]),
}

impl Mixture {
    /// Loads the mixture of a layer, whatever form its experts have.
    pub async fn load(layer: &Scope, spec: MixtureSpec) -> Result<Self, LoadError> {
        let MixtureSpec { hidden_size: c, intermediate_size: i, router, names, .. } = spec;
        let w = layer.scope(names.scope);
        let (weights, e) = (w.weights(), router.experts);
        let experts = ExpertSource::find(weights, names);
        let [gate, up, down] = names.experts.map(|name| format!("experts.{name}"));
        let bias = async |rows: ExpertRows<'_>, n: u32| {
            if !spec.bias {
                return Ok::<_, LoadError>(None);
            }
            weights.experts_bias_f32(rows, [e, n]).await.map(Some)
        };
        let [gate_bias, up_bias, down_bias] = [&gate, &up, &down].map(|module| format!("{module}_bias"));
        let [gate_up_stack_bias, down_stack_bias] = names.stacked.map(|name| format!("{name}_bias"));
        let (gate_up_bias, down_bias) = if w.has(&gate_bias) {
            (ExpertRows::StackedPair(&gate_bias, &up_bias), ExpertRows::Stacked(&down_bias))
        } else {
            (ExpertRows::Stacked(&gate_up_stack_bias), ExpertRows::Stacked(&down_stack_bias))
        };
        let router_module = Linear::load_router(&w, names.router, [e, c], spec.router_bias).await?;
        let shapes = [[e, 2 * i, c], [e, c, i]];
        let biases = [bias(gate_up_bias, 2 * i).await?, bias(down_bias, c).await?];
        let held = experts.with(async |rows| Held::load(&w, rows, shapes, biases, router.k).await).await?;
        Ok(Self {
            router: router_module,
            bias: of_experts(&w, names.choice_bias, e).await?,
            expert_scale: of_experts(&w, names.expert_scale, e).await?,
            experts: held,
            act: spec.act,
            shared: match spec.shared_intermediate_size {
                Some(width) => Some(Shared::load(&w, &spec, width).await?),
                None => None,
            },
            spec: router,
            notes: note_names(&w, ""),
            input_note: None,
            down_note: weights.full("experts.down_inputs"),
            source: Some(experts),
        })
    }

    /// Its matrices that every token is multiplied with as in a dense layer: those of a shared network.
    pub fn linears(&self) -> Vec<&Linear> {
        match &self.shared {
            Some(Shared::Plain(mlp)) => mlp.linears().to_vec(),
            Some(Shared::Gated(_, linears)) => linears.iter().collect(),
            None => Vec::new(),
        }
    }

    /// The matrices of all experts, gate and up, then down; of those that have a place, if they are in a cache.
    pub fn experts(&self) -> Option<&[Matrix; 2]> {
        self.experts.parts().map(|(matrices, _)| matrices)
    }

    /// Tells a mixture whose experts are in a cache which one comes behind it there.
    pub fn precede(&self, other: &Self) {
        if let (Held::Cached { mixture, next, .. }, Held::Cached { mixture: behind, .. }) =
            (&self.experts, &other.experts)
            && mixture + 1 == *behind
        {
            let _ = next.set(Gate {
                router: other.router.clone(),
                spec: other.spec,
                bias: other.bias.clone(),
                expert_scale: other.expert_scale.clone(),
            });
        }
    }

    /// From logits to experts and weights.
    pub fn router(&self) -> &Router {
        &self.spec
    }

    /// Module of the router in the checkpoint: under its name, what the router and all experts are given is
    /// [noted](Frame::note).
    pub fn router_module(&self) -> &str {
        self.router.modules().first().map_or("", String::as_str)
    }

    /// Where the experts lie in the checkpoint.
    pub fn expert_source(&self) -> Option<&ExpertSource> {
        self.source.as_ref()
    }

    /// Name under which what the products with the down projections are given is [noted](Frame::note): `[T K, I]`, the row of
    /// choice j of token t is t K + j. Rows of choices without an expert may hold anything.
    pub fn down_note(&self) -> &str {
        &self.down_note
    }

    /// Names under which the logits `[T, E]` and the routes u32 `[T, K, 2]` are [noted](Frame::note).
    pub fn notes(&self) -> &[String; 2] {
        &self.notes
    }

    /// `residual + alpha · mixture(norm(x))`: x `[T, C]` → `[T, C]`.
    ///
    /// Few rows are normalised by each product that reads them, more of them once.
    pub fn forward(&self, frame: &mut Frame, x: &Tensor, fused: Residual<'_>) -> Result<Tensor, OpError> {
        let Residual { norm, alpha, residual } = fused;
        if let Some(name) = self.input_note.as_ref().filter(|name| frame.watches(name)) {
            let x = norm.map(|norm| norm.forward(frame, x)).transpose()?.unwrap_or_else(|| x.clone()); // [T, C]
            frame.note(name, &x);
        }
        let many = x.shape().first().is_some_and(|&rows| rows > MAX_M);
        let normalised = match norm {
            Some(norm) if many => Some(norm.forward(frame, x)?), // [T, C]
            _ => None,
        };
        let (x, norm) = normalised.as_ref().map_or((x, norm), |x| (x, None));
        let prologue = norm.map(Norm::prologue);
        let logits = self.router.forward(frame, x, Fusion { norm: prologue, ..Fusion::default() })?; // [T, E]
        frame.note(&self.notes[0], &logits);
        let (bias, expert_scale) = (self.bias.as_ref(), self.expert_scale.as_ref());
        let vectors = RouterVectors { bias, expert_scale, table: None };
        let routes = moe::route(frame, &logits, &self.spec, vectors)?; // [T, K, 2]
        frame.note(&self.notes[1], &routes);
        let Some(([gate_up, down], [gate_up_bias, down_bias])) = self.experts.parts() else {
            let want = "a cache that was allocated".into();
            return Err(OpError::Value { op: "mixture", what: "places of experts", got: 0.0, want });
        };
        let (gate_up_bias, down_bias) = (gate_up_bias.as_ref(), down_bias.as_ref());
        let experts = girih_ops::Experts { gate_up, gate_up_bias, down, down_bias, act: self.act };
        let down_note = Some(self.down_note.as_str());
        let opts = girih_ops::Mixture { norm: prologue, alpha, residual, null: None, down_note };
        let y = match &self.experts {
            Held::Here { .. } => girih_ops::mixture(frame, x, &routes, &experts, &opts)?, // [T, C]
            Held::Cached { cache, mixture, next } => {
                let few = x.shape().first().is_some_and(|&rows| rows as usize <= FEW_TOKENS);
                let guesses = few && cache.memory().prefetch == Prefetch::Gate;
                let guess = match next.get().filter(|_| guesses) {
                    Some(gate) => Some((mixture + 1, gate.routes(frame, x, norm)?)),
                    None => None,
                };
                let elsewhere = Elsewhere { mixture: *mixture, experts: self.spec.experts, guess };
                girih_ops::mixture_in_places(frame, x, &routes, &experts, &opts, elsewhere)? // [T, C]
            }
        };
        let fused = Residual { norm, alpha, residual: Some(&y) };
        match &self.shared {
            None => Ok(y),
            Some(Shared::Plain(mlp)) => mlp.forward(frame, x, fused),
            Some(Shared::Gated(mixture, _)) => mixture.forward(frame, x, fused),
        }
    }

    /// `mixture(norm(x))` of the residual stream x, and the value of that: `[T, C]`, `[T, C]`.
    pub fn forward_stream(
        &self,
        frame: &mut Frame,
        stream: Stream<'_>,
        norm: Option<&Norm>,
    ) -> Result<(Tensor, Tensor), OpError> {
        let x = stream.value(frame)?;
        let y = self.forward(frame, &x, Residual { norm, alpha: 1.0, residual: None })?;
        Ok((x, y))
    }
}

impl Shared {
    async fn load(w: &Scope, spec: &MixtureSpec, width: u32) -> Result<Self, LoadError> {
        let MixtureSpec { hidden_size: c, act, names, .. } = *spec;
        let size = [c, width];
        let mlp = Mlp::load(&w.scope(names.shared), size, act, spec.shared_bias).await?;
        let Some(gate) = names.shared_gate else { return Ok(Self::Plain(mlp)) };
        let linears = mlp.linears().map(Linear::clone);
        let [gate_up, down] = &linears;
        let first = |linear: &Linear| linear.modules().first().cloned();
        let mixture = Mixture {
            router: Linear::load_router(w, gate, [1, c], false).await?,
            spec: Router { experts: 1, k: 1, score: Score::Sigmoid, ..SOFTMAX },
            bias: None,
            expert_scale: None,
            experts: Held::Here {
                matrices: [gate_up.matrix().clone(), down.matrix().clone()],
                biases: [gate_up.bias().cloned(), down.bias().cloned()],
            },
            act,
            shared: None,
            notes: note_names(w, names.shared),
            input_note: first(gate_up),
            down_note: first(down).unwrap_or_default(),
            source: None,
        };
        Ok(Self::Gated(Box::new(mixture), linears))
    }
}

/// `[E]`, or `[1, E]` as ERNIE has it; none without a name.
async fn of_experts(w: &Scope, name: Option<&str>, experts: u32) -> Result<Option<Tensor>, LoadError> {
    let Some(name) = name else { return Ok(None) };
    let is_row = w.weights().info(name).is_some_and(|info| info.shape.len() == 2);
    let shape: &[u32] = if is_row { &[1, experts] } else { &[experts] };
    w.place_vector(&w.weights().f32(name, shape).await?).map(Some)
}

fn note_names(w: &Scope, part: &str) -> [String; 2] {
    let w = w.scope(part);
    ["router_logits", "routes"].map(|name| w.weights().full(name))
}
