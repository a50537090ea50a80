//! The quantised matrices of a GGUF file, as modules of a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use girih_ops::kernels::quant::{QuantActivation, Row};

use super::{Codes, InputTransform, QuantModule, Quantization, RowLayout, Stored};
use crate::LoadError;
use crate::checkpoint::blocks::GgufType;
use crate::checkpoint::source::ByteSource;
use crate::checkpoint::table::{StoredType, TensorTable};

/// Rows of blocks.
#[derive(Debug)]
struct Blocks {
    ty: GgufType,
    tensor: String,
    /// Factor that NVFP4 keeps in a tensor of its own.
    scale: f32,
}

impl RowLayout for Blocks {
    fn row(&self, row: u32, k: u32, bytes: &[u8]) -> Result<Row, LoadError> {
        let mut out = Row::default();
        self.ty.read_row(bytes, self.scale, &mut out).map_err(|bad| LoadError::NotFinite {
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

/// How the modules are read whose `weight` is stored in blocks; none for other checkpoints.
///
/// # Errors
/// Matrices of other than two dimensions; a scale of a whole tensor that is 0, NaN or infinite; those of the source.
pub async fn modules(
    source: &dyn ByteSource,
    table: &TensorTable,
) -> Result<BTreeMap<String, Stored>, LoadError> {
    let mut out = BTreeMap::new();
    for info in table.iter() {
        let StoredType::Gguf(ty) = info.dtype else { continue };
        let (Some(format), Some(module)) = (ty.format(), info.name.strip_suffix(".weight")) else { continue };
        let dim = |i: usize| info.shape.get(i).and_then(|&d| u32::try_from(d).ok()).filter(|d| *d < 1 << 30);
        let (2, Some(n), Some(k)) = (info.shape.len(), dim(0), dim(1)) else {
            return Err(LoadError::Quantized {
                tensor: info.name.clone(),
                got: format!("of shape {:?}", info.shape),
                want: "a matrix with sides below 2^30".into(),
            });
        };
        let scale = match table.get(&format!("{module}.scale")) {
            Some(scale) if ty == GgufType::Nvfp4 => {
                let bytes = source.read(&scale.file, scale.range.clone()).await?;
                match (scale.dtype, bytes.as_chunks().0) {
                    (StoredType::F32, &[value]) => {
                        let value = f32::from_le_bytes(value);
                        if value == 0.0 || !value.is_finite() {
                            return Err(LoadError::Element {
                                tensor: scale.name.clone(),
                                index: 0,
                                got: value.to_string(),
                                want: "a finite scale of a whole tensor other than 0".into(),
                            });
                        }
                        value
                    }
                    _ => {
                        return Err(LoadError::Quantized {
                            tensor: scale.name.clone(),
                            got: format!("{} of shape {:?}", scale.dtype.name(), scale.shape),
                            want: "one F32".into(),
                        });
                    }
                }
            }
            _ => 1.0,
        };
        let codes = Codes::Bytes {
            file: info.file.clone(),
            start: info.range.start,
            row_bytes: ty.bytes_of(k.into()).unwrap_or(0),
            order: None,
            layout: Arc::new(Blocks { ty, tensor: info.name.clone(), scale }),
        };
        let (activation, input) = (QuantActivation::Float, InputTransform::default());
        let module = module.to_owned();
        out.insert(module, Stored::Module(QuantModule { n, k, format, activation, input, codes }));
    }
    Ok(out)
}
