//! Where the experts of a mixture lie in a checkpoint.

use super::MixtureNames;
use super::mixture::StackLayout;
use crate::checkpoint::table::TensorInfo;
use crate::checkpoint::weights::{ExpertRows, Weights};
use crate::error::LoadError;

/// Tensors or modules of all experts of a mixture, in one of the forms that checkpoints have.
#[derive(Clone, Debug)]
pub struct ExpertSource {
    /// Full name of the mixture.
    scope: String,
    names: MixtureNames,
    form: Form,
}

/// What [`MixtureNames`] a checkpoint uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Tensors with gate and up in one.
    Stacks,
    /// The same as modules of quantised blocks.
    Blocks,
    /// Modules `gate`, `up` and `down` of all experts.
    Apart,
    /// A module with gate and up in one; down is such a module, too, or one of those apart.
    Halves { down_apart: bool },
    /// Modules of each expert.
    Separate,
}

/// Which matrices of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertMatrix {
    /// Rows of gate and up alternately.
    GateUp,
    /// Down.
    Down,
}

impl ExpertSource {
    /// Looks which of the forms there is at `w`.
    pub(super) fn find(w: &Weights, names: MixtureNames) -> Self {
        let gate = format!("experts.{}.weight", names.experts[0]);
        let [gate_up_stack, down_stack] = names.stacked;
        let form = if w.has(gate_up_stack) {
            Form::Stacks
        } else if w.has(&format!("{gate_up_stack}_blocks")) {
            Form::Blocks
        } else if w.has(&gate) {
            Form::Apart
        } else if w.has(&format!("{gate_up_stack}.weight")) {
            Form::Halves { down_apart: !w.has(&format!("{down_stack}.weight")) }
        } else {
            Form::Separate
        };
        Self { scope: w.full(""), names, form }
    }

    /// Calls `load` with the rows of gate and up and those of down.
    pub(super) async fn with<T>(&self, load: impl AsyncFnOnce([ExpertRows<'_>; 2]) -> T) -> T {
        let [gate, up, down] = self.names.experts;
        let [gate_weight, up_weight, down_weight] =
            self.names.experts.map(|name| format!("experts.{name}.weight"));
        let [gate_up_stack, down_stack] = self.names.stacked;
        let [gate_up_module, down_module] = self.names.stacked.map(|name| format!("{name}.weight"));
        let rows = match (self.form, self.names.layout) {
            (Form::Stacks, StackLayout::Halves) => {
                [ExpertRows::StackedInterleaveHalves(gate_up_stack), ExpertRows::Stacked(down_stack)]
            }
            (Form::Stacks, StackLayout::Transposed) => {
                [gate_up_stack, down_stack].map(ExpertRows::StackedTransposed)
            }
            (Form::Blocks, _) => [gate_up_stack, down_stack].map(ExpertRows::Stacked),
            (Form::Apart, _) => {
                [ExpertRows::StackedPair(&gate_weight, &up_weight), ExpertRows::Stacked(&down_weight)]
            }
            (Form::Halves { down_apart }, _) => {
                let down = if down_apart { &down_weight } else { &down_module };
                [ExpertRows::StackedInterleaveHalves(&gate_up_module), ExpertRows::Stacked(down)]
            }
            (Form::Separate, _) => {
                let scope = "experts";
                let gate_up = ExpertRows::Separate { scope, gate_up: [gate, up] };
                [gate_up, ExpertRows::SeparateOne { scope, name: down }]
            }
        };
        load(rows).await
    }

    /// Full names of the modules of an expert, gate, up and down, where each has its own: what a checkpoint has that keeps
    /// them apart, in whatever form these are.
    pub fn modules(&self, expert: u32) -> [String; 3] {
        let scope = if self.scope.is_empty() { String::new() } else { format!("{}.", self.scope) };
        self.names.experts.map(|name| format!("{scope}experts.{expert}.{name}"))
    }

    /// The matrix `[N, K]` of an expert on the host, in f32. `checkpoint` is the root of the one that the mixture is loaded
    /// from, `[E, N, K]` the shape of the matrices of all.
    ///
    /// # Errors
    /// As [`Weights::experts_f32`].
    pub async fn expert_f32(
        &self,
        checkpoint: &Weights,
        of: ExpertMatrix,
        shape: [u32; 3],
        expert: u32,
    ) -> Result<Vec<f32>, LoadError> {
        let w = checkpoint.scope(&self.scope);
        self.with(async |rows| w.expert_f32(of.of(rows), shape, expert).await).await
    }

    /// The tensors of floats that the matrices of all experts are read from. They hold nothing else.
    ///
    /// # Errors
    /// As [`Weights::experts_f32`].
    pub async fn tensors(
        &self,
        checkpoint: &Weights,
        of: ExpertMatrix,
        shape: [u32; 3],
    ) -> Result<Vec<TensorInfo>, LoadError> {
        let w = checkpoint.scope(&self.scope);
        self.with(async |rows| w.expert_tensors(of.of(rows), shape).await).await
    }
}

impl ExpertMatrix {
    fn of(self, [gate_up, down]: [ExpertRows<'_>; 2]) -> ExpertRows<'_> {
        match self {
            Self::GateUp => gate_up,
            Self::Down => down,
        }
    }
}
