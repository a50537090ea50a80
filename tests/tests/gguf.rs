//! GGUF: container and blocks against goldens of the `gguf` package; checkpoints that are converted as
//! `convert_hf_to_gguf.py` does give the logits of transformers; quantised ones those of their decoded weights;
//! tokenizers give the tokens of their `tokenizer.json`; malformed files are refused.

use std::path::Path;
use std::sync::Arc;

use girih_kernels::quant::{Row, unpack_row};
use girih_model::checkpoint::format::gguf::{
    Architecture, Array, Gguf, GgufSource, GgufType, Value, checkpoint,
};
use girih_model::checkpoint::source::{ByteSource, DirSource, MemorySource};
use girih_model::network::arch::KNOWN;
use girih_model::{
    Input, LoadError, LoadOptions, Model, Rows, Session, SessionOptions, Tokenizer, load_config,
};
use girih_tests::checkpoints::Checkpoint;
use girih_tests::gguf::{File, blocks, convert, tokenizer};
use girih_tests::goldens::{self, Tensors, assert_close};
use pollster::block_on;
use serde_json::{Value as Json, json};

fn source(bytes: Vec<u8>) -> Arc<MemorySource> {
    Arc::new(MemorySource::new().with("model.gguf", bytes))
}

fn open(bytes: Vec<u8>) -> Result<Gguf, LoadError> {
    block_on(Gguf::open(&*source(bytes), "model.gguf"))
}

/// The golden has blocks without a second tensor scale only; each is packed and unpacked as well.
#[test]
fn blocks_are_those_of_the_reference() {
    let mut seen = 0;
    for case in goldens::op("gguf").cases() {
        let id = case.number("ggml_type").expect("a type") as u32;
        let ty = GgufType::from_id(id).unwrap_or_else(|| panic!("{}: type {id}", case.name));
        let (shape, want) = case.f32("w");
        let k = shape[1];
        let raw: Vec<u8> = case.ints("raw").into_iter().map(|v| v as u8).collect();
        let format = ty.format().expect("quantised");
        let row_bytes = ty.bytes_of(k.into()).expect("whole blocks") as usize;
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        ty.pack_rows(k, &raw, 1.0, &mut codes, &mut scales).expect("finite scales");
        let words = (format.code_words(k) as usize, format.scale_words(k) as usize);
        for (i, (bytes, want)) in raw.chunks_exact(row_bytes).zip(want.chunks_exact(k as usize)).enumerate() {
            let mut row = Row::default();
            ty.read_row(bytes, 1.0, &mut row).expect("finite scales");
            let got: Vec<f32> = row.values(format).into_iter().map(|v| v as f32).collect();
            // The reference rounds products and sums to f32.
            let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert_close(&format!("{} row {i}", case.name), &got, want, f64::from(largest) * 3e-7, 3e-7);
            let unpacked =
                unpack_row(format, k, &codes[i * words.0..][..words.0], &scales[i * words.1..][..words.1]);
            assert_eq!(unpacked, row, "{} row {i}", case.name);
            seen += 1;
        }
    }
    println!("{seen} rows");
}

#[test]
fn the_container_of_the_reference() {
    let op = goldens::op("gguf_file");
    for case in op.cases() {
        let dir = goldens::dir().join("ops");
        let file = case.json["file"].as_str().expect("a file").to_owned();
        let gguf = block_on(Gguf::open(&DirSource::new(&dir), &file)).expect("opens");
        for (key, want) in case.json["metadata"].as_object().expect("metadata") {
            let got = gguf.metadata.get(key).unwrap_or_else(|| panic!("{key} is missing"));
            let json = match got {
                Value::Uint(v) => json!(v),
                Value::Int(v) => json!(v),
                Value::Float(v) => json!(v),
                Value::Bool(v) => json!(v),
                Value::String(v) => json!(v),
                Value::Array(Array::Byte(v)) => json!(v),
                Value::Array(Array::Uint(v)) => json!(v),
                Value::Array(Array::Int(v)) => json!(v),
                Value::Array(Array::Float(v)) => json!(v),
                Value::Array(Array::Bool(v)) => json!(v),
                Value::Array(Array::String(v)) => json!(v),
                Value::Array(Array::Array(_)) => Json::Null,
            };
            assert_eq!(&json, want, "{key}");
        }
        let bytes = std::fs::read(dir.join(&file)).expect("the file");
        let tensors = Tensors::open(&dir.join("gguf_file.safetensors"));
        assert!(!gguf.tensors.is_empty());
        for t in &gguf.tensors {
            let (shape, want) = tensors.f32(&format!("{}.{}", case.name, t.name));
            assert_eq!(t.shape, shape.iter().map(|&d| d as u64).collect::<Vec<_>>(), "{}", t.name);
            let data = &bytes[t.range.start as usize..t.range.end as usize];
            let got: Vec<f32> = match t.ty {
                GgufType::F32 => data.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect(),
                GgufType::F16 => {
                    data.as_chunks().0.iter().map(|&c| half::f16::from_le_bytes(c).to_f32()).collect()
                }
                ty => ty.decode(shape[1] as u32, data, 1.0).expect("finite"),
            };
            assert_eq!(got, want, "{}", t.name);
        }
    }
}

fn load(source: Arc<dyn ByteSource>, name: &str) -> Arc<Model> {
    block_on(Model::load(&girih_tests::gpu(), source, LoadOptions::default(), |_| ()))
        .unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn logits(model: &Arc<Model>, token_ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, SessionOptions::default()).expect("a session");
    let logits = session.forward(&[Input { slot: 0, token_ids }], Rows::All, None).expect("forward");
    block_on(logits.to_f32(session.gpu())).expect("read")
}

fn folder(name: &str) -> std::path::PathBuf {
    goldens::dir().join("models").join(name)
}

fn converted(path: &Path) -> File {
    convert(Arc::new(DirSource::new(path)), &goldens::json(&path.join("config.json")))
}

/// Every family with a decoder: names, order of rows, norms, rotary scalings, constants.
#[test]
fn converted_checkpoints_give_the_logits_of_transformers() {
    let mut count = 0;
    for path in goldens::folders("models") {
        let reference = goldens::json(&path.join("reference.json"));
        let model_type = reference["model_type"].as_str().unwrap_or_default();
        let quantised = !goldens::json(&path.join("config.json"))["quantization_config"].is_null();
        let has_files = |a: &Architecture| a.model_type == model_type && !a.family.name.is_empty();
        let known = KNOWN.gguf.iter().any(has_files);
        if !known || quantised || !reference["texts"].is_null() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = load(source(converted(&path).bytes(3)), &name);
        assert!(model.unused_tensors().is_empty(), "{name}: {:?}", model.unused_tensors());
        let tensors = Tensors::open(&path.join("reference.safetensors"));
        let atol = reference["suggested_atol_float32"].as_f64().unwrap_or(5e-4);
        for prompt in ["p17", "p70"] {
            let ids: Vec<u32> =
                tensors.ints(&format!("{prompt}.input_ids")).into_iter().map(|v| v as u32).collect();
            let want = tensors.f32(&format!("{prompt}.logits")).1;
            assert_close(&format!("{name} {prompt}"), &logits(&model, &ids), &want, atol, 1e-4);
        }
        count += 1;
    }
    goldens::counted("models: converted to GGUF", count);
}

/// An encoder loads and has its pooling.
#[test]
fn a_converted_encoder() {
    let path = folder("bert_mean_pool");
    let mut file = converted(&path);
    file.set("bert.pooling_type", Value::Uint(1));
    tokenizer(&mut file, &goldens::json(&path.join("tokenizer.json")), "");
    let (one, other) = (load(source(file.bytes(3)), "gguf"), load(Arc::new(DirSource::new(&path)), "folder"));
    assert_eq!(one.pooling(), other.pooling());
    let texts = ["A stone lay in the river.", "Zwei Füchse!"];
    for text in texts {
        let ids =
            |model: &Model| model.tokenizer().expect("a tokenizer").encode(text, true).expect("encodes");
        assert_eq!(ids(&one), ids(&other));
    }
    let embed = |model: &Arc<Model>| {
        let ids: Vec<Vec<u32>> = texts.iter().map(|t| model.embedding_ids(t).expect("encodes")).collect();
        block_on(model.embed(&ids)).expect("embeds").concat()
    };
    assert_close("embeddings", &embed(&one), &embed(&other), 1e-6, 1e-5);
}

/// All block types in one model: matrices of a fused product differ in format.
#[test]
fn quantised_files_give_the_logits_of_their_decoded_weights() {
    use girih_model::checkpoint::format::gguf::GgufType as T;
    let extra = json!({ "num_hidden_layers": 3, "rope_theta": 10000.0 });
    let made = Checkpoint::new("llama-gguf", safetensors::Dtype::F32, [256, 4, 2, 64, 512, 320], &extra);
    let mut file = convert(made.source(), made.config());
    let types = [
        T::Q4_0,
        T::Q4K,
        T::Q6K,
        T::Q8_0,
        T::Q5K,
        T::Q5_1,
        T::Q2K,
        T::Q3K,
        T::Iq4Nl,
        T::Iq4Xs,
        T::Mxfp4,
        T::Nvfp4,
        T::Tq1_0,
        T::Tq2_0,
        T::Q4_1,
        T::Q5_0,
    ];
    file.quantize(&types);
    for ty in types {
        assert!(file.tensors.iter().any(|t| t.ty == ty), "{}", ty.name());
    }
    let ids: Vec<u32> = (0..23).map(|i| i * 37 % 320).collect();
    let quantised = load(source(file.bytes(3)), "quantised");
    assert!(quantised.unused_tensors().is_empty(), "{:?}", quantised.unused_tensors());
    let got = logits(&quantised, &ids);
    let want = logits(&load(source(file.decoded().bytes(3)), "decoded"), &ids);
    let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
    assert_close("logits", &got, &want, f64::from(largest) * 2e-4, 1e-3);
}

fn tokenizers() -> Vec<(&'static str, &'static str)> {
    vec![
        ("bpe-llama3", "llama-bpe"),
        ("bpe-qwen", "qwen2"),
        ("bpe-gpt2", "gpt-2"),
        ("bpe-o200k", "gpt-4o"),
        ("bpe-deepseek", "deepseek-v3"),
        ("spm-bpe-llama2", ""),
        ("spm-bpe-gemma", ""),
        ("wordpiece-bert", ""),
    ]
}

#[test]
fn tokenizers_give_the_tokens_of_their_own_files() {
    let mut model = converted(&folder("llama_llama3rope"));
    model.tensors.truncate(4);
    for (name, pre) in tokenizers() {
        let dir = goldens::dir().join("tokenizers").join(name);
        let original = goldens::json(&dir.join("tokenizer.json"));
        let mut file = model.clone();
        tokenizer(&mut file, &original, pre);
        let source = block_on(GgufSource::open(source(file.bytes(3)), "model.gguf", KNOWN.gguf)).expect(name);
        let size = block_on(source.size("tokenizer.json")).expect("a size").expect("a tokenizer");
        let text = block_on(source.read("tokenizer.json", 0..size)).expect("a tokenizer");
        let t = Tokenizer::from_bytes(&text).expect(name);
        let golden = goldens::json(&dir.join("golden.json"));
        let ids = |v: &Json| -> Vec<u32> {
            v.as_array().into_iter().flatten().filter_map(Json::as_u64).map(|v| v as u32).collect()
        };
        let mut wrong = Vec::new();
        let cases = golden["encode"].as_array().expect("cases");
        for case in cases {
            let text = case["text"].as_str().expect("a text");
            if t.encode(text, false).expect("encodes") != ids(&case["ids_no_special"])
                || t.encode(text, true).expect("encodes") != ids(&case["ids"])
                // As in llama.cpp, <|end|> is shown where <|return|> and <|call|> end answers.
                || (!text.contains("<|end|>")
                    && t.decode(&ids(&case["ids"]), true).expect("decodes")
                        != case["decoded_skip_special"].as_str().unwrap_or_default())
            {
                wrong.push(text);
            }
        }
        assert!(
            wrong.is_empty(),
            "{name}: {} of {}: {:?}",
            wrong.len(),
            cases.len(),
            &wrong[..wrong.len().min(5)]
        );
        println!("{name}: {} texts", cases.len());
    }
}

#[test]
fn unknown_things_are_named() {
    let base = converted(&folder("qwen2"));
    let with = |key: &str, value: Value| {
        let mut file = base.clone();
        file.set(key, value);
        let error =
            block_on(GgufSource::open(source(file.bytes(3)), "model.gguf", KNOWN.gguf)).expect_err(key);
        assert!(matches!(error, LoadError::Field { .. }), "{key}: {error}");
        error.to_string()
    };
    let text = |s: &str| Value::String(s.into());
    assert!(with("general.architecture", text("spiral")).contains("qwen3"));
    assert!(with("general.architecture", Value::Uint(3)).contains("a text"));
    assert!(with("qwen2.block_count", text("three")).contains("whole number"));
    assert!(with("qwen2.expert_count", Value::Uint(8)).contains("mixtures"));
    assert!(with("qwen2.rope.scaling.type", text("helix")).contains("yarn"));
    assert!(with("qwen2.attention.value_length", Value::Uint(3)).contains("key_length"));
    assert!(with("qwen2.pooling_type", Value::Uint(4)).contains("mean"));
    assert!(with("tokenizer.ggml.model", text("t5")).contains("gpt2"));
    let mut file = base.clone();
    file.set("tokenizer.ggml.model", text("gpt2"));
    file.set("tokenizer.ggml.pre", text("mystery"));
    file.set("tokenizer.ggml.tokens", Value::Array(Array::String(vec!["a".into()])));
    let error = block_on(GgufSource::open(source(file.bytes(3)), "model.gguf", KNOWN.gguf)).expect_err("pre");
    assert!(error.to_string().contains("llama-bpe"), "{error}");
    file.set("tokenizer.ggml.pre", text("gpt-2"));
    file.set("tokenizer.ggml.merges", Value::Array(Array::String(vec!["ab".into()])));
    block_on(GgufSource::open(source(file.bytes(3)), "model.gguf", KNOWN.gguf)).expect_err("merges");
    file.set("tokenizer.ggml.merges", Value::Array(Array::String(Vec::new())));
    file.set("tokenizer.ggml.bos_token_id", Value::Uint(7));
    let error = block_on(GgufSource::open(source(file.bytes(3)), "model.gguf", KNOWN.gguf)).expect_err("bos");
    assert!(error.to_string().contains("below 1"), "{error}");
}

/// A folder with one GGUF file is a checkpoint; a folder with two is not; safetensors go first.
#[test]
fn which_file_is_the_model() {
    let bytes = converted(&folder("qwen2")).bytes(2);
    let resolve = |source: MemorySource| block_on(checkpoint(Arc::new(source), KNOWN.gguf));
    let one = MemorySource::new().with("a.gguf", bytes.clone()).with("mmproj-a.gguf", vec![1]);
    let source = resolve(one.clone()).expect("one file");
    assert_eq!(block_on(load_config(&*source)).expect("a config").model_type, "qwen2");
    assert!(resolve(one.clone().with("b.gguf", bytes)).is_err());
    let source = resolve(one.with("model.safetensors", vec![1])).expect("left alone");
    assert!(source.tensors().is_none());
}

/// A small file with every kind of field.
fn small() -> File {
    let mut file = File::default();
    file.set("general.architecture", Value::String("llama".into()));
    file.set("n", Value::Int(-3));
    file.set("f", Value::Float(0.5));
    file.set("b", Value::Bool(true));
    file.set("list", Value::Array(Array::String(vec!["x".into(), "yz".into()])));
    file.set("ids", Value::Array(Array::Uint(vec![1, 2])));
    for (name, ty, shape) in [("a.weight", GgufType::Q4_0, vec![2, 64]), ("b.weight", GgufType::F32, vec![3])]
    {
        let elements: u64 = shape.iter().product();
        let bytes = match ty {
            GgufType::F32 => vec![0; 12],
            _ => blocks(ty, elements / ty.block_elements(), 1),
        };
        file.tensors.push(girih_tests::gguf::Tensor { name: name.into(), ty, shape, bytes });
    }
    file
}

#[test]
fn truncated_files_are_refused() {
    let bytes = small().bytes(3);
    open(bytes.clone()).expect("whole");
    open(small().bytes(2)).expect("version 2");
    for len in 0..bytes.len() {
        assert!(open(bytes[..len].to_vec()).is_err(), "{len} of {} bytes", bytes.len());
    }
}

/// Every byte of the header, set to values that break counts, lengths, types, offsets: an error or a file that reads,
/// never a panic or memory that is not there.
#[test]
fn broken_headers_do_no_harm() {
    let bytes = small().bytes(3);
    let header = bytes.len() - 12 - 96;
    let mut refused = 0;
    for at in 0..header {
        for value in [0, 1, 7, 9, 0x40, 0x7f, 0x80, 0xff] {
            let mut broken = bytes.clone();
            broken[at] = value;
            refused += usize::from(open(broken).is_err());
        }
        if at + 8 <= header {
            for value in [u64::MAX, 1 << 63, 1 << 40, 1 << 32] {
                let mut broken = bytes.clone();
                broken[at..at + 8].copy_from_slice(&value.to_le_bytes());
                refused += usize::from(open(broken).is_err());
            }
        }
    }
    assert!(refused > header, "{refused} of {header} bytes");
}

#[test]
fn errors_say_what_was_found() {
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = small().bytes(3);
        change(&mut bytes);
        open(bytes).expect_err("broken").to_string()
    };
    let put = |at: usize, with: &[u8]| {
        let with = with.to_vec();
        move |bytes: &mut Vec<u8>| bytes[at..at + with.len()].copy_from_slice(&with)
    };
    assert!(error(&put(0, b"GGML")).contains("magic"));
    assert!(error(&put(4, &[1, 0, 0, 0])).contains("version is 1"));
    assert!(error(&put(4, &[0, 0, 0, 3])).contains("big-endian"));
    assert!(error(&put(8, &u64::MAX.to_le_bytes())).contains("number of tensors"));
    assert!(error(&put(16, &u64::MAX.to_le_bytes())).contains("number of metadata entries"));
    assert!(error(&put(24, &u64::MAX.to_le_bytes())).contains("length of a metadata key"));
    // The last tensor's type and offset stand before the padding of the header.
    let bytes = small().bytes(3);
    let name = bytes.windows(8).rposition(|w| w == b"b.weight").expect("the name");
    let (dims, ty, offset) = (name + 12, name + 20, name + 24);
    assert!(error(&put(ty, &16u32.to_le_bytes())).contains("IQ2_XXS"));
    assert!(error(&put(ty, &99u32.to_le_bytes())).contains("b.weight has type \"99\""));
    assert!(error(&put(ty, &2u32.to_le_bytes())).contains("multiple of 32"));
    assert!(error(&put(offset, &8u64.to_le_bytes())).contains("offset of b.weight"));
    assert!(error(&put(offset, &64u64.to_le_bytes())).contains("inside a.weight"));
    assert!(error(&put(offset, &(1u64 << 40).to_le_bytes())).contains("b.weight ends at byte"));
    assert!(error(&put(dims, &(1u64 << 62).to_le_bytes())).contains("b.weight"));
    assert!(error(&put(name - 8 + 8, b"a")).contains("occurs twice"));
}

/// A text that is none is quoted in part, however long it is; bytes stay bytes.
#[test]
fn long_things_stay_small() {
    let mut file = small();
    file.set("text", Value::String("x".repeat(1 << 20)));
    file.set("bytes", Value::Array(Array::Byte(vec![200, 7])));
    let mut bytes = file.bytes(3);
    let gguf = open(bytes.clone()).expect("opens");
    assert_eq!(gguf.metadata["bytes"], Value::Array(Array::Byte(vec![200, 7])));
    assert_eq!(gguf.uints("bytes").expect("numbers"), Some(vec![200, 7]));
    let at = bytes.windows(9).position(|w| w == b"xxxxxxxxx").expect("the text");
    bytes[at + 3] = 0xff;
    let message = open(bytes).expect_err("not UTF-8").to_string();
    assert!(message.contains("text") && message.contains("and 1048512 more"), "{message}");
    assert!(message.len() < 1000, "{} bytes", message.len());
}

/// The scale that NVFP4 keeps in a tensor of its own.
#[test]
fn scales_of_whole_tensors() {
    let open = |scale: f32| {
        let mut file = converted(&folder("qwen2"));
        let ty = GgufType::Nvfp4;
        let t = file.tensors.iter_mut().find(|t| t.name == "blk.0.attn_q.weight").expect("a matrix");
        t.bytes = blocks(ty, t.shape.iter().product::<u64>() / ty.block_elements(), 1);
        t.ty = ty;
        let scale = scale.to_le_bytes().to_vec();
        let name = "blk.0.attn_q.scale".into();
        file.tensors.push(girih_tests::gguf::Tensor {
            name,
            ty: GgufType::F32,
            shape: vec![1],
            bytes: scale,
        });
        let source =
            block_on(GgufSource::open(source(file.bytes(3)), "model.gguf", KNOWN.gguf)).expect("opens");
        let table = source.tensors().expect("a table").clone();
        block_on(girih_model::checkpoint::quantized::blocks::modules(&source, &table))
    };
    assert_eq!(open(0.5).expect("a scale").len(), 1);
    for bad in [0.0, -0.0, f32::NAN, f32::INFINITY] {
        let error = open(bad).expect_err("no scale");
        let named = matches!(&error, LoadError::Element { tensor, .. } if tensor.ends_with("q_proj.scale"));
        assert!(named, "{bad}: {error}");
    }
}

/// Bytes of a second of one core; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed_of_repacking() {
    for &ty in GgufType::ALL.iter().filter(|t| t.format().is_some()) {
        let (k, rows) = (4096, 512);
        let bytes = blocks(ty, u64::from(k) * rows / ty.block_elements(), 1);
        let start = std::time::Instant::now();
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        ty.pack_rows(k, &bytes, 1.0, &mut codes, &mut scales).expect("packs");
        let rate = bytes.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
        println!("{:<7} {rate:6.0} MB/s", ty.name());
    }
}
