//! The bidirectional encoder of BERT.

use girih_ops::{Act, Batch, Frame, KvSize, KvView, Linear as Fusion, Matrix, OpError, Tensor};

use super::attention::Residual;
use super::{Attention, Linear, Norm, Trace};

/// Token, position and segment embeddings, then layers with norms after the residuals.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// `[V, C]`
    pub words: Matrix,
    /// `[max_position_embeddings, C]`
    pub positions: Matrix,
    /// `[type_vocab_size, C]`
    pub segments: Matrix,
    /// Norm of the embeddings.
    pub norm: Norm,
    /// Layers.
    pub layers: Vec<EncoderLayer>,
    /// `tanh(W x + b)` of the first token, where the checkpoint has it.
    pub pooler: Option<Linear>,
}

/// `x = norm(x + attn(x)); x = norm(x + down(act(up(x))))`
#[derive(Clone, Debug)]
pub struct EncoderLayer {
    /// Attention.
    pub attn: Attention,
    /// Norm after it.
    pub attn_norm: Norm,
    /// To the intermediate size.
    pub up: Linear,
    /// Activation.
    pub act: Act,
    /// Back.
    pub down: Linear,
    /// Norm after it.
    pub mlp_norm: Norm,
}

impl EncoderLayer {
    /// Its matrices, in the order in which they are used.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.attn.linears().into_iter().chain([&self.up, &self.down])
    }
}

impl Encoder {
    /// Token ids (in the batch) and segment ids u32 `[T]` → the last layer's states `[T, C]`.
    pub fn forward(
        &self,
        frame: &mut Frame,
        batch: &Batch,
        segment_ids: &Tensor,
        mut trace: Option<&mut Trace>,
    ) -> Result<Tensor, OpError> {
        let words = girih_ops::embedding(frame, &batch.token_ids, &self.words, 1.0)?; // [T, C]
        let positions = girih_ops::embedding(frame, &batch.positions, &self.positions, 1.0)?;
        let segments = girih_ops::embedding(frame, segment_ids, &self.segments, 1.0)?;
        let sum = girih_ops::add(frame, &words, &positions)?;
        let sum = girih_ops::add(frame, &sum, &segments)?;
        let mut x = self.norm.forward(frame, &sum)?; // [T, C]
        let mut keep = |x: &Tensor| {
            if let Some(trace) = trace.as_deref_mut() {
                trace.push(x.clone());
            }
        };
        keep(&x);
        for layer in &self.layers {
            let spec = layer.attn.spec();
            let kv = KvView::alloc(
                frame.gpu(),
                KvSize {
                    slots: batch.num_seqs(),
                    num_kv_heads: spec.num_kv_heads,
                    capacity: batch.max_q_len,
                    head_dim: spec.head_dim,
                    f16: false,
                },
            )?;
            let fused = Residual { norm: None, alpha: 1.0, residual: Some(&x) };
            let h = layer.attn.forward(frame, &x, batch, &kv, fused)?; // [T, C]
            let h = layer.attn_norm.forward(frame, &h)?;
            let up = layer.up.forward(frame, &h, Fusion { act: layer.act, ..Fusion::default() })?; // [T, F]
            let y = layer.down.forward(frame, &up, Fusion { residual: Some(&h), ..Fusion::default() })?; // [T, C]
            x = layer.mlp_norm.forward(frame, &y)?;
            keep(&x);
        }
        Ok(x)
    }
}
