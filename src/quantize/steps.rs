//! Matrices that share an input, and what calibration keeps of it.

use std::collections::BTreeSet;

use girih_model::checkpoint::table::{StoredType, TensorInfo, TensorTable};
use girih_model::checkpoint::weights::Weights;
use girih_model::network::layers::{ExpertMatrix, ExpertSource};
use girih_model::{LoadError, Model};

use super::Error;
use crate::error::Failure;

/// Rows of an input that statistics keep at most.
pub const SAMPLE_ROWS: usize = 2048;
/// The same of what one expert is given.
pub const EXPERT_ROWS: usize = 512;
/// Bytes that GPTQ works with, in squares of channels: a copy of the second moments, then the factor, then its inverse
/// and U.
const WORK: u64 = 12;

/// Matrices that share an input.
#[derive(Debug)]
pub enum Step {
    /// Those of a linear layer.
    Linear(LinearStep),
    /// Those of all experts of a layer: gate and up, or down.
    Experts(Box<ExpertStep>),
}

/// The modules of a linear layer.
#[derive(Debug)]
pub struct LinearStep {
    /// Full names; what the layer is given is noted under the first.
    pub modules: Vec<String>,
    /// Rows of each.
    pub rows: Vec<u32>,
    /// Channels of the input.
    pub k: u32,
}

/// The matrices of all experts of a layer.
#[derive(Debug)]
pub struct ExpertStep {
    /// Index of the layer.
    pub layer: u32,
    /// Which matrices.
    pub of: ExpertMatrix,
    /// Experts, rows of one, channels of the input.
    pub shape: [u32; 3],
    /// Where they lie in the checkpoint.
    pub source: ExpertSource,
    /// Name under which the input is noted: `[T, K]`, of down `[T S, K]`.
    pub input: String,
    /// Name under which routes are noted: u32 `[T, S, 2]`.
    pub routes: String,
    /// Tensors that the modules of the experts take the place of.
    pub replaced: Vec<String>,
}

impl Step {
    /// All steps of a model.
    pub async fn all(model: &Model, weights: &Weights) -> Result<Vec<Self>, Failure> {
        let table = weights.table();
        let mut steps = Vec::new();
        for linear in model.linears() {
            let k = linear.matrix().k;
            let (mut rows, modules) = (Vec::new(), linear.modules().to_vec());
            for module in &modules {
                rows.push(dense_rows(table, module, k)?);
            }
            steps.push(Self::Linear(LinearStep { modules, rows, k }));
        }
        for (layer, mixture) in model.mixtures() {
            let Some(source) = mixture.expert_source() else { continue };
            let Some(matrices) = mixture.experts() else { continue };
            let matrices = [ExpertMatrix::GateUp, ExpertMatrix::Down].into_iter().zip(matrices);
            let inputs = [mixture.router_module(), mixture.down_note()];
            for ((of, matrix), input) in matrices.zip(inputs) {
                let shape = [matrix.experts, matrix.expert_rows(), matrix.k];
                let tensors = source.tensors(weights, of, shape).await?;
                if tensors.is_empty() || !tensors.iter().all(is_dense) {
                    let [gate, _, down] = source.modules(0);
                    let module = if of == ExpertMatrix::Down { down } else { gate };
                    return Err(Error::NotDense { module }.into());
                }
                steps.push(Self::Experts(Box::new(ExpertStep {
                    layer,
                    of,
                    shape,
                    source: source.clone(),
                    input: input.to_owned(),
                    routes: mixture.notes()[1].clone(),
                    replaced: tensors.into_iter().map(|info| info.name).collect(),
                })));
            }
        }
        Ok(steps)
    }

    /// How it is called where something is said about it.
    pub fn name(&self) -> String {
        match self {
            Self::Linear(step) => step.modules.join(", "),
            Self::Experts(step) => {
                format!("layer {}, {} of {} experts", step.layer, step.what(), step.shape[0])
            }
        }
    }

    /// What must be noted while the model runs.
    pub fn notes(&self) -> BTreeSet<String> {
        match self {
            Self::Linear(step) => step.modules.first().cloned().into_iter().collect(),
            Self::Experts(step) => [step.input.clone(), step.routes.clone()].into(),
        }
    }

    /// Channels of the input.
    pub fn k(&self) -> u32 {
        match self {
            Self::Linear(step) => step.k,
            Self::Experts(step) => step.shape[2],
        }
    }

    /// Tensors of the checkpoint that are not written, because what the step makes takes their place.
    pub fn replaced(&self) -> Vec<String> {
        match self {
            Self::Linear(step) => step.modules.iter().map(|module| weight(module)).collect(),
            Self::Experts(step) => step.replaced.clone(),
        }
    }

    /// Bytes of all statistics, of which what is kept for one expert, and of what rounding works with.
    pub fn bytes(&self, moments: bool) -> Bytes {
        let k = u64::from(self.k());
        let square = if moments { k * k } else { 0 };
        let kept = |rows: usize, square: u64| 4 * square + 4 * k * rows as u64 + 32 * k;
        let work = WORK * square;
        match self {
            Self::Linear(_) => Bytes { all: kept(SAMPLE_ROWS, square), expert: 0, work },
            Self::Experts(step) => {
                let expert = kept(EXPERT_ROWS, square);
                let all = kept(SAMPLE_ROWS, 0) + u64::from(step.shape[0]) * expert;
                Bytes { all, expert, work }
            }
        }
    }
}

impl ExpertStep {
    /// Which matrices of the experts.
    fn what(&self) -> &'static str {
        match self.of {
            ExpertMatrix::GateUp => "gate and up",
            ExpertMatrix::Down => "down",
        }
    }

    /// The matrices of an expert on the host, each with the name of its module, as a checkpoint with separate ones has
    /// them.
    pub async fn modules(
        &self,
        weights: &Weights,
        expert: u32,
    ) -> Result<Vec<(String, Vec<f32>)>, LoadError> {
        let rows = self.source.expert_f32(weights, self.of, self.shape, expert).await?;
        let [gate_name, up_name, down_name] = self.source.modules(expert);
        if self.of == ExpertMatrix::Down {
            return Ok(vec![(down_name, rows)]);
        }
        let k = self.shape[2] as usize;
        let (mut gate, mut up) = (Vec::with_capacity(rows.len() / 2), Vec::with_capacity(rows.len() / 2));
        for pair in rows.chunks_exact(2 * k) {
            gate.extend_from_slice(&pair[..k]);
            up.extend_from_slice(&pair[k..]);
        }
        Ok(vec![(gate_name, gate), (up_name, up)])
    }
}

/// Bytes on the host that a step takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Statistics.
    pub all: u64,
    /// Of these what is kept of one expert's input.
    pub expert: u64,
    /// What rounding a matrix works with.
    pub work: u64,
}

/// How many of the steps share a pass of the text: their statistics and what the largest of them is rounded with fit the
/// memory.
pub fn fitting(steps: impl Iterator<Item = Bytes>, memory: u64) -> usize {
    let (mut statistics, mut work) = (0u64, 0);
    let fits = steps.take_while(|step| {
        statistics += step.all;
        work = work.max(step.work);
        statistics + work <= memory
    });
    fits.count()
}

/// How many experts of a step share a pass of the text: at least one.
pub fn fitting_experts(step: Bytes, experts: u32, memory: u64) -> u32 {
    let rest = memory.saturating_sub(step.work + step.all - u64::from(experts) * step.expert);
    (rest / step.expert.max(1)).clamp(1, experts.max(1).into()) as u32
}

pub fn weight(module: &str) -> String {
    format!("{module}.weight")
}

fn is_dense(info: &TensorInfo) -> bool {
    matches!(info.dtype, StoredType::F64 | StoredType::F32 | StoredType::F16 | StoredType::BF16)
}

/// Rows of a module that is a matrix of floats with `k` columns.
fn dense_rows(table: &TensorTable, module: &str, k: u32) -> Result<u32, Error> {
    match table.get(&weight(module)) {
        Some(info) if is_dense(info) && info.shape.len() == 2 && info.shape[1] == u64::from(k) => {
            Ok(info.shape[0] as u32)
        }
        _ => Err(Error::NotDense { module: module.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_fit() {
        let linear =
            |k, moments| Step::Linear(LinearStep { modules: Vec::new(), rows: Vec::new(), k }).bytes(moments);
        let sample = 4096 * (4 * 2048 + 32);
        let square = 4096u64 * 4096;
        let count = |moments, memory| fitting([linear(4096, moments); 8].into_iter(), memory);
        assert_eq!(count(false, 3 * sample), 3);
        // Twelve bytes of work, once, beside four for each.
        assert_eq!(count(true, 3 * (sample + 4 * square)), 1);
        assert_eq!(count(true, 3 * (sample + 4 * square) + 12 * square), 3);
        let mixed = fitting([linear(64, true), linear(4096, true)].into_iter(), 12 * square);
        assert_eq!(mixed, 1, "the larger one does not fit");
    }

    #[test]
    fn experts_that_fit() {
        let (k, experts) = (1024u64, 60);
        let (expert, pooled, work) = (4 * k * k + k * (4 * 512 + 32), k * (4 * 2048 + 32), 12 * k * k);
        let bytes = Bytes { all: pooled + u64::from(experts) * expert, expert, work };
        let count = |memory| fitting_experts(bytes, experts, memory);
        assert_eq!([count(0), count(pooled + work + 3 * expert), count(u64::MAX)], [1, 3, 60]);
        assert_eq!(count(pooled + work + 4 * expert - 1), 3);
        assert_eq!(count(bytes.all + work), 60);
    }
}
