//! The quantised matrices of a GGUF file, as modules of a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use girih_ops::kernels::quant::{QuantActivation, Row};

use super::{Codes, InputTransform, QuantModule, Quantization, RowLayout, Stored};
use crate::LoadError;
use crate::checkpoint::blocks::GgufType;
use crate::checkpoint::source::ByteSource;
use crate::checkpoint::table::{StoredType, TensorInfo, TensorTable};

/// Rows of blocks.
#[derive(Debug)]
struct Blocks {
    ty: GgufType,
    tensor: String,
    /// Factors that NVFP4 keeps in a tensor of its own: one for each matrix of the stack.
    scales: Vec<f32>,
    /// Rows of a matrix of the stack.
    rows: u32,
}

impl RowLayout for Blocks {
    fn row(&self, row: u32, k: u32, bytes: &[u8]) -> Result<Row, LoadError> {
        let mut out = Row::default();
        let matrix = row.checked_div(self.rows).unwrap_or(0) as usize;
        let scale = self.scales.get(matrix).copied().unwrap_or(1.0);
        self.ty.read_row(bytes, scale, &mut out).map_err(|bad| LoadError::NotFinite {
            tensor: self.tensor.clone(),
            index: u64::from(row) * u64::from(k) + bad.element,
            got: bad.got,
        })?;
        Ok(out)
    }
}

impl Quantization {
    /// All quantised modules of a checkpoint: what its `config.json` and the files beside it say, and blocks of GGUF files.
    ///
    /// # Errors
    /// Those of [`Quantization::described`] and [`modules`].
    pub async fn open(
        source: &dyn ByteSource,
        config: &Map<String, Value>,
        table: &TensorTable,
    ) -> Result<Self, LoadError> {
        let mut found = Self::described(source, config, table).await?;
        found.modules.extend(modules(source, table).await?);
        Ok(found)
    }
}

/// How the modules are read whose `weight` is stored in blocks; none for other checkpoints. The matrices of a stack of
/// experts `[E, N, K]` are one module with their rows one behind the other.
///
/// # Errors
/// Matrices of other than two dimensions, or three of experts; a scale of a whole tensor that is 0, NaN or infinite;
/// those of the source.
pub async fn modules(
    source: &dyn ByteSource,
    table: &TensorTable,
) -> Result<BTreeMap<String, Stored>, LoadError> {
    let mut out = BTreeMap::new();
    for info in table.iter() {
        let StoredType::Gguf(ty) = info.dtype else { continue };
        let (Some(format), Some(module)) = (ty.format(), info.name.strip_suffix(".weight")) else { continue };
        let side = |d: u64| u32::try_from(d).ok().filter(|d| *d < 1 << 30);
        let sides = match info.shape[..] {
            [n, k] => Some([1, n, k]),
            [e, n, k] => Some([e, n, k]),
            _ => None,
        };
        let Some((experts, rows, n, k)) = sides.and_then(|[e, n, k]| {
            let all = e.checked_mul(n).and_then(side)?;
            Some((side(e)?, side(n)?, all, side(k)?))
        }) else {
            return Err(LoadError::Quantized {
                tensor: info.name.clone(),
                got: format!("of shape {:?}", info.shape),
                want: "a matrix, or those of experts, with less than 2^30 rows and columns".into(),
            });
        };
        let scales = match table.get(&format!("{module}.scale")) {
            Some(scale) if ty == GgufType::Nvfp4 => tensor_scales(source, scale, experts).await?,
            _ => Vec::new(),
        };
        let codes = Codes::Bytes {
            file: info.file.clone(),
            start: info.range.start,
            row_bytes: ty.bytes_of(k.into()).unwrap_or(0),
            order: None,
            layout: Arc::new(Blocks { ty, tensor: info.name.clone(), scales, rows }),
        };
        let (activation, input) = (QuantActivation::Float, InputTransform::default());
        let module = module.to_owned();
        out.insert(module, Stored::Module(QuantModule { n, k, format, activation, input, codes }));
    }
    Ok(out)
}

/// The scales of whole tensors, one for each matrix.
async fn tensor_scales(
    source: &dyn ByteSource,
    info: &TensorInfo,
    experts: u32,
) -> Result<Vec<f32>, LoadError> {
    let bytes = info.range.end - info.range.start;
    if info.dtype != StoredType::F32 || bytes != 4 * u64::from(experts) {
        return Err(LoadError::Quantized {
            tensor: info.name.clone(),
            got: format!("{} of shape {:?}", info.dtype.name(), info.shape),
            want: if experts == 1 { "one F32".into() } else { format!("{experts} F32, one of each expert") },
        });
    }
    let bytes = source.read(&info.file, info.range.clone()).await?;
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect();
    match values.iter().position(|v| *v == 0.0 || !v.is_finite()) {
        None => Ok(values),
        Some(i) => Err(LoadError::Element {
            tensor: info.name.clone(),
            index: i as u64,
            got: values[i].to_string(),
            want: "a finite scale of a whole tensor other than 0".into(),
        }),
    }
}
