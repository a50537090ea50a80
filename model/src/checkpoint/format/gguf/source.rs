//! A GGUF file as a checkpoint folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use serde_json::json;

use super::config::RopeFactors;

use super::{Architecture, Family, Gguf, GgufTensor, GgufType, field};
use crate::LoadError;
use crate::checkpoint::format::paired;
use crate::checkpoint::source::{BoxFuture, ByteSource, is_part_of};
use crate::checkpoint::table::{StoredType, TensorInfo, TensorTable};

/// What a converter did to the bytes of a tensor, to be undone while they are read.
#[derive(Clone, Debug)]
enum Fix {
    /// Rows of a head: the pairs (i, i + half) of the model's own order lie beside each other.
    Pairs {
        /// Bytes of a head.
        head: u64,
        /// Bytes of a row.
        row: u64,
    },
    /// f32 values that are 1 too large.
    PlusOne,
}

impl Fix {
    /// Bytes that must be read together.
    fn unit(&self) -> u64 {
        match self {
            Self::Pairs { head, .. } => *head,
            Self::PlusOne => 4,
        }
    }

    /// Undoes it in whole units.
    fn undo(&self, bytes: &mut [u8]) {
        match *self {
            Self::Pairs { head, row } => paired::undo(bytes, head as usize, row as usize),
            Self::PlusOne => {
                for v in bytes.as_chunks_mut::<4>().0 {
                    *v = (f32::from_le_bytes(*v) - 1.0).to_le_bytes();
                }
            }
        }
    }
}

/// File of the biases that a GGUF file leaves out beside others: all of it is 0.
const ZEROS: &str = "biases of 0";

/// A GGUF file, in one part or several, shown as the folder that it was made from: `config.json`, `tokenizer.json`, `tokenizer_config.json`,
/// `modules.json` and tensors under their own names, in their own order of rows.
///
/// The tensors keep their types and their places in the file. Two things that converters do are undone while bytes
/// are read: the rows of queries and keys of the Llama family, and the 1 that is added to norms of the Gemma family.
/// Biases are a matter of each single tensor in such files: where one of several that belong together is left out, it
/// is shown as 0. Tensors that the network does not use are errors, as in llama.cpp.
#[derive(Debug)]
pub struct GgufSource {
    inner: Arc<dyn ByteSource>,
    files: BTreeSet<String>,
    texts: BTreeMap<String, Vec<u8>>,
    table: TensorTable,
    /// Bytes of [`ZEROS`].
    zeros: u64,
    /// By file.
    fixes: BTreeMap<String, Vec<(Range<u64>, Fix)>>,
}

impl GgufSource {
    /// Opens a file of one of the architectures that are known.
    ///
    /// # Errors
    /// Those of [`Gguf::open`]; another architecture; metadata that are missing or that no model can have.
    pub async fn open(
        inner: Arc<dyn ByteSource>,
        file: &str,
        known: &'static [Architecture],
    ) -> Result<Self, LoadError> {
        let gguf = Gguf::open(&*inner, file).await?;
        Self::new(inner, &gguf, known).await
    }

    /// The same with a header that is known already.
    ///
    /// # Errors
    /// As [`GgufSource::open`].
    pub async fn new(
        inner: Arc<dyn ByteSource>,
        gguf: &Gguf,
        known: &'static [Architecture],
    ) -> Result<Self, LoadError> {
        let architecture = gguf.architecture(known)?;
        let family = &architecture.family;
        let (mut infos, mut factors) = (Vec::new(), RopeFactors::default());
        let mut fixes: BTreeMap<String, Vec<(Range<u64>, Fix)>> = BTreeMap::new();
        let mut short_long = [None, None];
        for t in &gguf.tensors {
            match t.name.as_str() {
                "rope_freqs.weight" => factors.all = Some(floats(&*inner, t).await?),
                "rope_factors_short.weight" => short_long[0] = Some(floats(&*inner, t).await?),
                "rope_factors_long.weight" => short_long[1] = Some(floats(&*inner, t).await?),
                name if family.is_for_others(name) => tracing::debug!("{}: {name} is left out", t.file),
                name => {
                    if let Some(fix) = gguf.fix(family, t)? {
                        fixes.entry(t.file.clone()).or_default().push((t.range.clone(), fix));
                    }
                    infos.push(TensorInfo {
                        name: family.tensor(name).unwrap_or_else(|| name.to_owned()),
                        dtype: t.ty.into(),
                        shape: match t.shape.as_slice() {
                            // Older files have the one row as a vector.
                            &[k] if name.ends_with(".ffn_gate_inp_shexp.weight") => vec![1, k],
                            shape => shape.to_vec(),
                        },
                        file: t.file.clone(),
                        range: t.range.clone(),
                    });
                }
            }
        }
        if let [Some(short), Some(long)] = short_long {
            factors.short_long = Some([short, long]);
        }
        let mut zeros = 0;
        for (name, rows) in gguf.left_out_biases(architecture) {
            let end = zeros + 4 * rows;
            let (dtype, shape, file) = (StoredType::F32, vec![rows], ZEROS.to_owned());
            infos.push(TensorInfo { name, dtype, shape, file, range: zeros..end });
            zeros = end;
        }
        let mut texts = BTreeMap::new();
        let mut add = |name: &str, value: &serde_json::Value| {
            texts.insert(name.to_owned(), value.to_string().into_bytes());
        };
        add("config.json", &gguf.config(architecture, &factors)?.into());
        add("tokenizer_config.json", &gguf.tokenizer_config()?);
        if let Some(tokenizer) = gguf.tokenizer()? {
            add("tokenizer.json", &tokenizer);
        }
        let key = format!("{}.pooling_type", family.name);
        let mode = match gguf.uint(&key)? {
            None | Some(0) => None,
            Some(1) => Some("pooling_mode_mean_tokens"),
            Some(2) => Some("pooling_mode_cls_token"),
            Some(3) => Some("pooling_mode_lasttoken"),
            Some(other) => {
                return Err(field(&gguf.file, &key, other.to_string(), "0 to 3 (none, mean, first, last)"));
            }
        };
        if let Some(mode) = mode {
            let module = |name: &str, path: &str| json!({"type": name, "path": path});
            let modules = [
                module("sentence_transformers.models.Transformer", ""),
                module("sentence_transformers.models.Pooling", "1_Pooling"),
                module("sentence_transformers.models.Normalize", "2_Normalize"),
            ];
            add("modules.json", &json!(modules));
            add("1_Pooling/config.json", &json!({mode: true}));
        }
        let table = TensorTable::new(infos)?.used_as_a_whole();
        let files = gguf.tensors.iter().map(|t| t.file.clone()).chain([gguf.file.clone()]).collect();
        Ok(Self { inner, files, texts, table, zeros, fixes })
    }

    async fn bytes(&self, file: &str, range: Range<u64>) -> Result<Vec<u8>, LoadError> {
        // Fixed tensors are read in whole units; a range lies in few of them.
        let (mut start, mut end) = (range.start, range.end);
        let overlaps = |r: &Range<u64>| r.start < range.end && range.start < r.end;
        let fixes = self.fixes.get(file).into_iter().flatten();
        let fixes: Vec<_> = fixes.filter(|(r, _)| overlaps(r)).collect();
        for (r, fix) in &fixes {
            let unit = fix.unit();
            let down = |at: u64| r.start + (at - r.start) / unit * unit;
            start = start.min(down(range.start.max(r.start)));
            end = end.max(r.start + (range.end.min(r.end) - r.start).next_multiple_of(unit));
        }
        let mut bytes = self.inner.read(file, start..end).await?;
        for (r, fix) in &fixes {
            let from = r.start + (start.max(r.start) - r.start).next_multiple_of(fix.unit());
            let to = end.min(r.end);
            fix.undo(&mut bytes[(from - start) as usize..(to - start) as usize]);
        }
        bytes.truncate((range.end - start) as usize);
        bytes.drain(..(range.start - start) as usize);
        Ok(bytes)
    }
}

impl Gguf {
    /// What must be undone when a tensor is read.
    fn fix(&self, family: &Family, t: &GgufTensor) -> Result<Option<Fix>, LoadError> {
        if t.range.is_empty() {
            return Ok(None);
        }
        if let Some(key) = family.paired_rows(&t.name) {
            return self.pairs(t, &format!("{}.{key}", family.name)).map(Some);
        }
        if !family.is_plus_one(&t.name) {
            return Ok(None);
        }
        match t.ty {
            GgufType::F32 => Ok(Some(Fix::PlusOne)),
            ty => Err(LoadError::StoredType { tensor: t.name.clone(), got: ty.name(), want: "F32" }),
        }
    }

    /// How the rows of queries or keys are to be put back.
    fn pairs(&self, t: &GgufTensor, heads_key: &str) -> Result<Fix, LoadError> {
        let heads = match self.per_layer(heads_key)? {
            Some(heads) => heads,
            // As many as there are query heads.
            None => self.per_layer(&heads_key.replace("_kv", ""))?.unwrap_or(0),
        };
        let rows = t.shape.first().copied().unwrap_or(0);
        let pairs = heads.checked_mul(2).filter(|&n| n > 0 && rows > 0);
        if !pairs.is_some_and(|pairs| rows.is_multiple_of(pairs)) {
            let want = format!("a multiple of 2 * {heads_key} ({heads})");
            return Err(field(&t.file, &format!("rows of {}", t.name), rows.to_string(), &want));
        }
        let bytes = t.range.end - t.range.start;
        if !bytes.is_multiple_of(rows) {
            return Err(LoadError::StoredType {
                tensor: t.name.clone(),
                got: t.ty.name(),
                want: "whole rows",
            });
        }
        Ok(Fix::Pairs { head: bytes / heads, row: bytes / rows })
    }

    /// Biases that a network of the family reads and the file does not have, by their own names, with their lengths.
    fn left_out_biases(&self, architecture: &Architecture) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for [weight, bias] in self.biased(architecture.biases) {
            let rows = self.tensor(&weight).and_then(|t| t.shape.first().copied());
            if let (Some(rows), None, Some(own)) =
                (rows, self.tensor(&bias), architecture.family.tensor(&bias))
            {
                found.push((own, rows));
            }
        }
        found
    }
}

async fn floats(source: &dyn ByteSource, t: &GgufTensor) -> Result<Vec<f32>, LoadError> {
    if t.ty != GgufType::F32 {
        return Err(LoadError::StoredType { tensor: t.name.clone(), got: t.ty.name(), want: "F32" });
    }
    if t.range.end - t.range.start > 1 << 16 {
        let got = (t.range.end - t.range.start).to_string();
        return Err(field(&t.file, &format!("bytes of {}", t.name), got, "at most 65536"));
    }
    let bytes = source.read(&t.file, t.range.clone()).await?;
    Ok(bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect())
}

impl ByteSource for GgufSource {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(async move {
            let truncated = |got, want| LoadError::Truncated { file: file.to_owned(), got, want };
            if range.start > range.end {
                return Err(truncated(range.start, range.end));
            }
            if let Some(text) = self.texts.get(file) {
                let place = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
                let part = place.and_then(|(start, end)| text.get(start..end)).map(<[u8]>::to_vec);
                return part.ok_or_else(|| truncated(text.len() as u64, range.end));
            }
            if self.files.contains(file) {
                return self.bytes(file, range).await;
            }
            match file {
                ZEROS if range.end > self.zeros => Err(truncated(self.zeros, range.end)),
                ZEROS => Ok(vec![0; (range.end - range.start) as usize]),
                _ => Err(LoadError::NoFile { file: file.to_owned() }),
            }
        })
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        match self.texts.get(file) {
            Some(text) => Box::pin(std::future::ready(Ok(Some(text.len() as u64)))),
            None if self.files.contains(file) => self.inner.size(file),
            None => Box::pin(std::future::ready(Ok(None))),
        }
    }

    fn list(&self) -> Option<Vec<String>> {
        Some(self.texts.keys().chain(&self.files).cloned().collect())
    }

    fn tensors(&self) -> Option<&TensorTable> {
        Some(&self.table)
    }
}

/// A checkpoint folder whatever the source holds: one that has no safetensors and exactly one `.gguf` file, in one part
/// or several (beside `mmproj` files, which belong to others), is shown as [`GgufSource`]; any other is left as it is.
///
/// # Errors
/// Several GGUF files; those of [`GgufSource::open`].
pub async fn checkpoint(
    source: Arc<dyn ByteSource>,
    known: &'static [Architecture],
) -> Result<Arc<dyn ByteSource>, LoadError> {
    if source.tensors().is_some() {
        return Ok(source);
    }
    let files = source.list().unwrap_or_default();
    if files.iter().any(|f| f.ends_with(".safetensors") || f.ends_with(".safetensors.index.json")) {
        return Ok(source);
    }
    let is_gguf = |f: &&String| f.to_ascii_lowercase().ends_with(".gguf") && !f.starts_with("mmproj");
    let found: Vec<&String> = files.iter().filter(is_gguf).collect();
    match found.as_slice() {
        [] => Ok(source),
        [file, rest @ ..] if rest.iter().all(|other| is_part_of(other, file)) => {
            Ok(Arc::new(GgufSource::open(source.clone(), file, known).await?))
        }
        several => {
            let got = several.iter().map(|f| f.as_str()).collect::<Vec<_>>().join(", ");
            Err(field("the folder", "GGUF files", got, "one (name the file itself)"))
        }
    }
}
