//! From token ids to logits.

use girih_ops::{Act, Batch, Frame, Linear as Fusion, Matrix, OpError, Tensor};

use super::{Block, Cache, Linear, Norm, Stream};

/// A decoder-only language model.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Embedding table `[V, C]`.
    pub embedding: Matrix,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// Layers.
    pub blocks: Vec<Block>,
    /// Norm of the last layer's result.
    pub norm: Norm,
    /// Logits; `None` for embedding models.
    pub head: Option<Head>,
}

/// The projection to the vocabulary.
#[derive(Clone, Debug)]
pub struct Head {
    /// `[V, C]`; the embedding table where they are tied.
    pub linear: Linear,
    /// Factor of the logits.
    pub alpha: f32,
    /// `c · tanh(l / c)` of the logits.
    pub softcap: Option<f32>,
}

/// The residual stream: its value before the first layer and after each.
pub type Trace = Vec<Tensor>;

impl Decoder {
    /// The residual stream after the last layer, before the final norm: `[T, C]`.
    pub fn hidden(
        &self,
        frame: &mut Frame,
        batch: &Batch,
        cache: &Cache,
        mut trace: Option<&mut Trace>,
    ) -> Result<Tensor, OpError> {
        let x = girih_ops::embedding(frame, &batch.token_ids, &self.embedding, self.embedding_scale)?; // [T, C]
        if let Some(trace) = trace.as_deref_mut() {
            trace.push(x.clone());
        }
        let mut x = Stream::Value(x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(frame, x, batch, cache.layer(i))?; // [T, C]
            if let Some(trace) = trace.as_deref_mut() {
                let value = x.value(frame)?;
                trace.push(value.clone());
                x = Stream::Value(value);
            }
        }
        x.value(frame)
    }

    /// Logits of chosen rows of the residual stream: x `[S, C]` → `[S, V]`. One kernel (per part of the head).
    pub fn logits(&self, frame: &mut Frame, x: &Tensor) -> Result<Tensor, OpError> {
        let Some(head) = &self.head else {
            let want = "a model with a language-model head (this one computes embeddings)".into();
            return Err(OpError::Value { op: "logits", what: "heads", got: 0.0, want });
        };
        let act = head.softcap.map_or(Act::Identity, Act::SoftCap);
        let fused = Fusion { norm: Some(self.norm.prologue()), alpha: head.alpha, act, ..Fusion::default() };
        head.linear.forward(frame, x, fused)
    }
}
