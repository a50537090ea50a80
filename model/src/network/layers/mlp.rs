//! The gated feed-forward network.

use girih_ops::{Act, Frame, GluAct, Linear as Fusion, OpError, Tensor};

use super::{Linear, Modules, Norm, Residual, Scope, Stream};
use crate::error::LoadError;

/// `down(act(gate(x)) * up(x))`. The rows of gate and up are interleaved, so that one kernel computes both and
/// their product.
#[derive(Clone, Debug)]
pub struct Mlp {
    gate_up: Linear,
    down: Linear,
    act: GluAct,
}

impl Mlp {
    /// `gate_proj`, `up_proj` (or a fused `gate_up_proj`, gate rows first) and `down_proj`.
    pub async fn load(
        w: &Scope,
        [hidden, intermediate]: [u32; 2],
        act: GluAct,
        bias: bool,
    ) -> Result<Self, LoadError> {
        let modules = if w.has("gate_up_proj.weight") {
            Modules::InterleaveHalves("gate_up_proj")
        } else {
            Modules::Interleave("gate_proj", "up_proj")
        };
        Ok(Self {
            gate_up: Linear::load(w, modules, [2 * intermediate, hidden], bias).await?,
            down: Linear::load(w, Modules::Concat(&["down_proj"]), [hidden, intermediate], bias).await?,
            act,
        })
    }

    /// Its matrices: gate and up, then down.
    pub fn linears(&self) -> [&Linear; 2] {
        [&self.gate_up, &self.down]
    }

    /// `residual + alpha · mlp(norm(x))`: x `[T, C]` → `[T, C]`. Two kernels.
    pub fn forward(&self, frame: &mut Frame, x: &Tensor, fused: Residual<'_>) -> Result<Tensor, OpError> {
        let Residual { norm, alpha, residual } = fused;
        let h = self.gate_up.forward(frame, x, self.gated(norm))?; // [T, F]
        self.down.forward(frame, &h, Fusion { alpha, residual, ..Fusion::default() }) // [T, C]
    }

    /// `mlp(norm(x))` of the residual stream x, and the value of that: `[T, C]`, `[T, C]`.
    pub fn forward_stream(
        &self,
        frame: &mut Frame,
        stream: Stream<'_>,
        norm: Option<&Norm>,
    ) -> Result<(Tensor, Tensor), OpError> {
        let (x, h) = self.gate_up.forward_stream(frame, stream, self.gated(norm))?; // [T, C], [T, F]
        Ok((x, self.down.forward(frame, &h, Fusion::default())?))
    }

    fn gated<'a>(&self, norm: Option<&'a Norm>) -> Fusion<'a> {
        Fusion { norm: norm.map(Norm::prologue), act: Act::Glu(self.act), ..Fusion::default() }
    }
}
