//! A GGUF file as a checkpoint folder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde_json::json;

use super::config::RopeFactors;
use super::{Gguf, GgufTensor, GgufType, field};
use crate::LoadError;
use crate::format::paired;
use crate::format::safetensors::{StoredType, TensorInfo, TensorTable};
use crate::source::{BoxFuture, ByteSource};

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

/// A GGUF file, shown as the folder that it was made from: `config.json`, `tokenizer.json`, `tokenizer_config.json`,
/// `modules.json` and tensors under their own names, in their own order of rows.
///
/// The tensors keep their types and their places in the file. Two things that converters do are undone while bytes
/// are read: the rows of queries and keys of the Llama family, and the 1 that is added to norms of the Gemma family.
#[derive(Debug)]
pub struct GgufSource {
    inner: Arc<dyn ByteSource>,
    file: String,
    texts: BTreeMap<String, Vec<u8>>,
    table: TensorTable,
    fixes: Vec<(Range<u64>, Fix)>,
}

impl GgufSource {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of [`Gguf::open`]; a family that is not known; metadata that are missing or that no model can have.
    pub async fn open(inner: Arc<dyn ByteSource>, file: &str) -> Result<Self, LoadError> {
        let gguf = Gguf::open(&*inner, file).await?;
        Self::new(inner, &gguf).await
    }

    /// The same with a header that is known already.
    ///
    /// # Errors
    /// As [`GgufSource::open`].
    pub async fn new(inner: Arc<dyn ByteSource>, gguf: &Gguf) -> Result<Self, LoadError> {
        let family = gguf.family()?;
        let (mut infos, mut fixes, mut factors) = (Vec::new(), Vec::new(), RopeFactors::default());
        let mut short_long = [None, None];
        for t in &gguf.tensors {
            match t.name.as_str() {
                "rope_freqs.weight" => factors.all = Some(floats(&*inner, &gguf.file, t).await?),
                "rope_factors_short.weight" => short_long[0] = Some(floats(&*inner, &gguf.file, t).await?),
                "rope_factors_long.weight" => short_long[1] = Some(floats(&*inner, &gguf.file, t).await?),
                name => {
                    if let Some(key) = family.paired_rows(name) {
                        let fix = gguf.pairs(t, &format!("{}.{key}", family.name))?;
                        fixes.push((t.range.clone(), fix));
                    }
                    if family.is_plus_one(name) {
                        if t.ty != GgufType::F32 {
                            let (tensor, got) = (t.name.clone(), t.ty.name());
                            return Err(LoadError::StoredType { tensor, got, want: "F32" });
                        }
                        fixes.push((t.range.clone(), Fix::PlusOne));
                    }
                    infos.push(TensorInfo {
                        name: family.tensor(name).unwrap_or_else(|| name.to_owned()),
                        dtype: t.ty.dense().unwrap_or(StoredType::Gguf(t.ty)),
                        shape: t.shape.clone(),
                        file: gguf.file.clone(),
                        range: t.range.clone(),
                    });
                }
            }
        }
        if let [Some(short), Some(long)] = short_long {
            factors.short_long = Some([short, long]);
        }
        let mut texts = BTreeMap::new();
        let mut add = |name: &str, value: &serde_json::Value| {
            texts.insert(name.to_owned(), value.to_string().into_bytes());
        };
        add("config.json", &gguf.config(&factors)?.into());
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
        let table = TensorTable::new(infos)?;
        Ok(Self { inner, file: gguf.file.clone(), texts, table, fixes })
    }

    async fn bytes(&self, range: Range<u64>) -> Result<Vec<u8>, LoadError> {
        // Fixed tensors are read in whole units; a range lies in few of them.
        let (mut start, mut end) = (range.start, range.end);
        let overlaps = |r: &Range<u64>| r.start < range.end && range.start < r.end;
        let fixes: Vec<_> = self.fixes.iter().filter(|(r, _)| overlaps(r)).collect();
        for (r, fix) in &fixes {
            let unit = fix.unit();
            let down = |at: u64| r.start + (at - r.start) / unit * unit;
            start = start.min(down(range.start.max(r.start)));
            end = end.max(r.start + (range.end.min(r.end) - r.start).next_multiple_of(unit));
        }
        let mut bytes = self.inner.read(&self.file, start..end).await?;
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
    /// How the rows of queries or keys are to be put back.
    fn pairs(&self, t: &GgufTensor, heads_key: &str) -> Result<Fix, LoadError> {
        let heads = match self.per_layer(heads_key)? {
            Some(heads) => heads,
            // As many as there are query heads.
            None => self.per_layer(&heads_key.replace("_kv", ""))?.unwrap_or(0),
        };
        let rows = t.shape.first().copied().unwrap_or(0);
        if heads == 0 || rows == 0 || !rows.is_multiple_of(2 * heads) {
            let want = format!("a multiple of 2 * {heads_key} ({heads})");
            return Err(field(&self.file, &format!("rows of {}", t.name), rows.to_string(), &want));
        }
        let bytes = t.range.end - t.range.start;
        Ok(Fix::Pairs { head: bytes / heads, row: bytes / rows })
    }
}

async fn floats(source: &dyn ByteSource, file: &str, t: &GgufTensor) -> Result<Vec<f32>, LoadError> {
    if t.ty != GgufType::F32 {
        return Err(LoadError::StoredType { tensor: t.name.clone(), got: t.ty.name(), want: "F32" });
    }
    if t.range.end - t.range.start > 1 << 16 {
        let got = (t.range.end - t.range.start).to_string();
        return Err(field(file, &format!("bytes of {}", t.name), got, "at most 65536"));
    }
    let bytes = source.read(file, t.range.clone()).await?;
    Ok(bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect())
}

impl ByteSource for GgufSource {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(async move {
            let Some(text) = self.texts.get(file) else {
                if file != self.file {
                    return Err(LoadError::NoFile { file: file.to_owned() });
                }
                if range.start > range.end {
                    let (got, want) = (range.start, range.end);
                    return Err(LoadError::Truncated { file: file.to_owned(), got, want });
                }
                return self.bytes(range).await;
            };
            let part = text.get(range.start as usize..range.end as usize).map(<[u8]>::to_vec);
            let (got, want) = (text.len() as u64, range.end);
            part.ok_or_else(|| LoadError::Truncated { file: file.to_owned(), got, want })
        })
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        match self.texts.get(file) {
            Some(text) => Box::pin(std::future::ready(Ok(Some(text.len() as u64)))),
            None if file == self.file => self.inner.size(file),
            None => Box::pin(std::future::ready(Ok(None))),
        }
    }

    fn list(&self) -> Option<Vec<String>> {
        Some(self.texts.keys().cloned().chain([self.file.clone()]).collect())
    }

    fn tensors(&self) -> Option<&TensorTable> {
        Some(&self.table)
    }
}

/// A checkpoint folder whatever the source holds: one that has no safetensors and exactly one `.gguf` file (beside
/// `mmproj` files, which are parts of others) is shown as [`GgufSource`]; any other is left as it is.
///
/// # Errors
/// Several GGUF files; those of [`GgufSource::open`].
pub async fn checkpoint(source: Arc<dyn ByteSource>) -> Result<Arc<dyn ByteSource>, LoadError> {
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
        [file] => Ok(Arc::new(GgufSource::open(source.clone(), file).await?)),
        several => {
            let got = several.iter().map(|f| f.as_str()).collect::<Vec<_>>().join(", ");
            Err(field("the folder", "GGUF files", got, "one (name the file itself)"))
        }
    }
}
