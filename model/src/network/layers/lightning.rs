//! Lightning attention (arXiv:2401.04658): linear attention with a state that decays, a norm behind it and a gate.

use girih_ops::{
    Act, Activation, Batch, Frame, Gpu, Linear as Fusion, OpError, Tensor, glu, linear_attention,
};

use super::{LayerCache, Linear, Modules, Norm, Residual, Scope};
use crate::error::LoadError;
use crate::network::config::HiddenAct;

/// What distinguishes the lightning attention of one layer from another's.
#[derive(Clone, Copy, Debug)]
pub struct LightningSpec {
    /// C.
    pub hidden_size: u32,
    /// Heads H.
    pub num_heads: u32,
    /// Channels D of a head.
    pub head_dim: u32,
    /// Activation of queries, keys and values.
    pub act: HiddenAct,
    /// Number of the layer, and of all: layers behind forget more slowly.
    pub layer: [u32; 2],
}

impl LightningSpec {
    /// How fast the state of each head decays: `2^(-8 (h + 1) / H) (1 - i / (L - 1 + 1e-5) + 1e-5)`.
    fn slopes(&self) -> Vec<f32> {
        let [layer, layers] = self.layer.map(f64::from);
        let factor = 1.0 - layer / (layers - 1.0 + 1e-5) + 1e-5;
        let base = (-8.0 / f64::from(self.num_heads)).exp2() as f32;
        (1..=self.num_heads).map(|h| base.powi(h as i32) * factor as f32).collect()
    }
}

/// Projections, norm and slopes of one layer.
#[derive(Clone, Debug)]
pub struct LightningAttention {
    spec: LightningSpec,
    /// `[H 3 D, C]`
    qkv: Linear,
    /// `[H D, C]`
    gate: Linear,
    /// Over all heads.
    norm: Norm,
    /// `[C, H D]`
    out: Linear,
    /// `[H]`
    slopes: Tensor,
}

impl LightningAttention {
    /// `qkv_proj`, `output_gate`, `norm`, `out_proj`. Checkpoints also hold what follows from the slopes: it is computed.
    pub async fn load(w: &Scope, spec: LightningSpec) -> Result<Self, LoadError> {
        let LightningSpec { hidden_size: c, num_heads, head_dim, .. } = spec;
        let inner = num_heads * head_dim;
        let linear = async |name, size| Linear::load(w, Modules::Concat(&[name]), size, false).await;
        for derived in ["slope_rate", "query_decay", "key_decay", "diagonal_decay"] {
            w.tensors().ignore(derived);
        }
        Ok(Self {
            qkv: linear("qkv_proj", [3 * inner, c]).await?,
            gate: linear("output_gate", [inner, c]).await?,
            // As the model's own code has it, whatever `rms_norm_eps` says.
            norm: Norm::rms(&w.scope("norm"), inner, 1e-6, false).await?,
            out: linear("out_proj", [c, inner]).await?,
            slopes: w.place_vector(&spec.slopes())?,
            spec,
        })
    }

    /// Its matrices, in the order in which they are used.
    pub fn linears(&self) -> [&Linear; 3] {
        [&self.qkv, &self.gate, &self.out]
    }

    /// Memory of the states of `slots` sequences, whatever their length.
    ///
    /// # Errors
    /// Memory that is exhausted, a layer that exceeds a binding.
    pub fn alloc_states(&self, gpu: &Gpu, slots: u32) -> Result<Tensor, OpError> {
        let LightningSpec { num_heads, head_dim, .. } = self.spec;
        let shape = [slots, num_heads, head_dim, head_dim];
        let bytes = shape.iter().fold(4u64, |all, &n| all.saturating_mul(n.into()));
        let limit = gpu.caps().binding_bytes;
        if bytes > limit {
            let want = format!("at most {limit} (one binding); lower the number of sequences");
            let (what, got) = ("bytes of a layer's states", bytes as f64);
            return Err(OpError::Value { op: "linear_attention", what, got, want });
        }
        Tensor::from_buffer(gpu.alloc(bytes)?, &shape, girih_ops::DType::F32)
    }

    /// `residual + alpha · attention(norm(x))`: x `[T, C]` → `[T, C]`.
    pub fn forward(
        &self,
        frame: &mut Frame,
        x: &Tensor,
        batch: &Batch,
        cache: &LayerCache,
        fused: Residual<'_>,
    ) -> Result<Tensor, OpError> {
        let Residual { norm, alpha, residual } = fused;
        let act = match self.spec.act {
            HiddenAct::Silu => Act::Silu,
            HiddenAct::Gelu => Act::GeluErf,
            HiddenAct::GeluTanh => Act::GeluTanh,
            HiddenAct::Relu => Act::Relu,
        };
        let (x, norm) = Norm::once(norm, frame, x)?;
        let norm = norm.map(Norm::prologue);
        let qkv = self.qkv.forward(frame, &x, Fusion { norm, act, ..Fusion::default() })?; // [T, H 3 D]
        let gate = self.gate.forward(frame, &x, Fusion { norm, ..Fusion::default() })?; // [T, H D]
        let sums = linear_attention(frame, &qkv, &self.slopes, cache.states()?, batch)?; // [T, H D]
        let sums = self.norm.forward(frame, &sums)?;
        let gated = glu(frame, &gate, &sums, Activation::Sigmoid)?;
        self.out.forward(frame, &gated, Fusion { alpha, residual, ..Fusion::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two heads of the second of three layers.
    #[test]
    fn slopes_of_heads_and_layers() {
        let spec =
            LightningSpec { hidden_size: 8, num_heads: 2, head_dim: 4, act: HiddenAct::Silu, layer: [1, 3] };
        let factor = 1.0 - 1.0 / 2.00001 + 1e-5;
        for (got, want) in spec.slopes().into_iter().zip([factor / 16.0, factor / 256.0]) {
            assert!((f64::from(got) - want).abs() < 1e-7, "{got}, want {want}");
        }
    }
}
