//! Checkpoint folders as they are published: the same model in other files, under other names and with other words
//! about it loads and gives the same; what cannot be read is named.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use girih_kernels::Gpu;
use girih_model::checkpoint::quantized::{Quantization, Stored};
use girih_model::checkpoint::table::{StoredType, TensorTable};
use girih_model::{
    Config, Input, LoadError, LoadOptions, MemorySource, Model, Rows, Session, SessionOptions,
};
use girih_tests::checkpoints::Checkpoint;
use girih_tests::goldens::{self, Tensors, assert_close};
use girih_tests::{files, gpu};
use pollster::block_on;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};

static GPU: LazyLock<Gpu> = LazyLock::new(gpu);

/// A tensor: type, shape, bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// A checkpoint whose parts a test changes.
#[derive(Clone)]
struct Folder {
    config: Value,
    tensors: BTreeMap<String, Tensor>,
    rest: MemorySource,
}

impl Folder {
    /// A golden model.
    fn golden(name: &str) -> Self {
        let path = goldens::dir().join("models").join(name);
        let read =
            |file: &str| files::read(&path.join(file)).unwrap_or_else(|e| panic!("{name}/{file}: {e}"));
        let mut rest = MemorySource::new();
        for file in ["tokenizer.json", "modules.json", "1_Pooling/config.json"] {
            if let Ok(bytes) = files::read(&path.join(file)) {
                rest = rest.with(file, bytes);
            }
        }
        let config = serde_json::from_slice(&read("config.json")).expect("JSON");
        Self::of(config, &read("model.safetensors"), rest)
    }

    /// A made-up one.
    fn made_up(checkpoint: &Checkpoint) -> Self {
        use girih_model::ByteSource;
        let source = checkpoint.source();
        let size = block_on(source.size("model.safetensors")).expect("reads").expect("weights");
        let bytes = block_on(source.read("model.safetensors", 0..size)).expect("reads");
        Self::of(checkpoint.config().clone(), &bytes, MemorySource::new())
    }

    fn of(config: Value, bytes: &[u8], rest: MemorySource) -> Self {
        let read = SafeTensors::deserialize(bytes).expect("tensors");
        let tensors = read
            .iter()
            .map(|(name, t)| (name.to_owned(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())));
        Self { config, tensors: tensors.collect(), rest }
    }

    fn renamed(&self, name: impl Fn(&str) -> String) -> Self {
        let tensors = self.tensors.iter().map(|(n, t)| (name(n), t.clone())).collect();
        Self { tensors, ..self.clone() }
    }

    fn set(&mut self, fields: &Value) {
        for (name, value) in fields.as_object().expect("an object") {
            self.config[name] = value.clone();
        }
    }

    fn weights(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes of the shape"))
        });
        serialize(views, None).expect("tensors")
    }

    /// Everything but the weights.
    fn described(&self) -> MemorySource {
        self.rest.clone().with("config.json", self.config.to_string().into_bytes())
    }

    fn source(&self) -> MemorySource {
        self.described().with("model.safetensors", self.weights())
    }
}

fn try_load(source: MemorySource, context: Option<u32>) -> Result<Arc<Model>, LoadError> {
    let options = LoadOptions { context, ..LoadOptions::default() };
    block_on(Model::load(&GPU, Arc::new(source), options, |_| ()))
}

fn forward(model: &Arc<Model>, token_ids: &[u32]) -> Vec<f32> {
    let mut session = Session::new(model, SessionOptions::default()).expect("a session");
    let logits = session.forward(&[Input { slot: 0, token_ids }], Rows::All, None).expect("forward");
    block_on(logits.to_f32(session.gpu())).expect("reads")
}

/// Logits, and that every tensor is used.
fn logits(what: &str, source: MemorySource) -> Vec<f32> {
    let model = try_load(source, None).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(model.unused_tensors().is_empty(), "{what}: {:?}", model.unused_tensors());
    forward(&model, &[3, 1, 4, 1, 5, 9, 2, 6])
}

fn refused(what: &str, source: MemorySource) -> LoadError {
    match try_load(source, None) {
        Ok(_) => panic!("{what}: loads"),
        Err(error) => error,
    }
}

/// What gemma-3-4b leaves out of its `text_config` and what a checkpoint of transformers 5 calls its tensors.
#[test]
fn the_text_part_of_a_multimodal_checkpoint() {
    let extra = json!({"tie_word_embeddings": true, "sliding_window": 5, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 131_072, "num_hidden_layers": 6});
    // The class of the configuration has 8 query heads, 4 key heads and 256 channels.
    let plain = Folder::made_up(&Checkpoint::new("gemma3_text", Dtype::F16, [20, 8, 4, 256, 24, 50], &extra));
    let want = logits("every field stated", plain.source());
    for prefix in ["language_model.model", "model.language_model"] {
        let mut sparse = plain.renamed(|name| name.replacen("model", prefix, 1));
        sparse.config = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
            "vision_config": {"hidden_size": 3}, "text_config": {"model_type": "gemma3_text", "hidden_size": 20,
            "intermediate_size": 24, "num_hidden_layers": 6, "vocab_size": 50, "sliding_window": 5}});
        assert!(logits(prefix, sparse.source()) == want, "{prefix}: other logits");
        // Without the name of the text part, and with one that is unknown.
        sparse.config["text_config"]["model_type"].take();
        assert!(logits(prefix, sparse.source()) == want, "{prefix}: other logits without model_type");
        sparse.config["text_config"]["model_type"] = "gemma9_text".into();
        let error = refused(prefix, sparse.source());
        assert!(matches!(&error, LoadError::UnknownModel { got, .. } if got == "gemma9_text"), "{error}");
    }
    // A head of its own, above the prefix or below it; llava's text part is llama where nothing says so.
    let extra = json!({"max_position_embeddings": 2048, "rms_norm_eps": 1e-6});
    let plain = Folder::made_up(&Checkpoint::new("llama", Dtype::F32, [32, 32, 32, 4, 40, 50], &extra));
    let want = logits("llama", plain.source());
    for (prefix, head) in [
        ("language_model.model", "language_model.lm_head"),
        ("model.language_model", "lm_head"),
        ("model.text_model", "lm_head"),
    ] {
        let mut nested =
            plain.renamed(|name| name.replacen("model.", &format!("{prefix}."), 1).replace("lm_head", head));
        nested.config = json!({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava",
            "text_config": {"hidden_size": 32, "head_dim": 4, "intermediate_size": 40, "num_hidden_layers": 2,
            "vocab_size": 50}});
        assert!(logits(prefix, nested.source()) == want, "{prefix}: other logits");
    }
}

#[test]
fn bert_under_the_names_of_tensorflow() {
    let golden = Folder::golden("bert_mean_pool");
    let sequences = [vec![2, 50, 60, 3], vec![2, 9, 3]];
    let embed = |what: &str, folder: &Folder| {
        let model = try_load(folder.source(), None).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(model.unused_tensors().is_empty(), "{what}: {:?}", model.unused_tensors());
        block_on(model.embed(&sequences)).expect("embeds").concat()
    };
    let want = embed("as it is", &golden);
    let old = |name: &str| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    };
    for prefix in ["", "bert.", "encoder_of_text.", "0.auto_model."] {
        assert_eq!(embed(prefix, &golden.renamed(|n| format!("{prefix}{n}"))), want, "{prefix}");
        let folder = golden.renamed(|n| format!("{prefix}{}", old(n)));
        assert_eq!(embed(prefix, &folder), want, "{prefix}, gamma and beta");
    }
    // A bias is part of the architecture: where neither name is there, nothing is assumed.
    for suffix in ["LayerNorm.beta", "LayerNorm.gamma"] {
        let mut without = golden.renamed(old);
        let gone = format!("encoder.layer.1.output.{suffix}");
        without.tensors.remove(&gone).expect("is there");
        let error = refused(suffix, without.source());
        let new = gone.replace("beta", "bias").replace("gamma", "weight");
        assert!(matches!(&error, LoadError::Tensors { missing, .. } if *missing == [new]), "{error}");
    }
    // Two encoders: which one is meant?
    let mut two = golden.renamed(|n| format!("question.{n}"));
    two.tensors.extend(golden.renamed(|n| format!("answer.{n}")).tensors);
    assert!(matches!(refused("two encoders", two.source()), LoadError::Tensors { .. }));
}

/// As the cards of Qwen 2.5 and 3 say: add `rope_scaling`, and nothing else.
#[test]
fn yarn_reaches_as_far_as_the_configuration_asks() {
    let mut folder = Folder::golden("qwen2");
    folder.config.as_object_mut().expect("an object").remove("rope_parameters");
    folder.set(&json!({"max_position_embeddings": 32, "rope_theta": 10000.0,
        "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32, "type": "yarn"}}));
    let golden = Tensors::open(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/configs/yarn.safetensors"),
    );
    let ids: Vec<u32> = golden.ints("input_ids").into_iter().map(|id| id as u32).collect();
    let (shape, want) = golden.f32("logits");
    let rows = golden.ints("rows");
    let gguf = girih_tests::gguf::convert(Arc::new(folder.source()), &folder.config).bytes(3);
    for (what, source) in [("folder", folder.source()), ("GGUF", MemorySource::new().with("m.gguf", gguf))] {
        let model = try_load(source, None).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(model.context(), 128, "{what}");
        let all = forward(&model, &ids);
        let got = rows.iter().flat_map(|&row| &all[row as usize * shape[1]..][..shape[1]]);
        assert_close(what, &got.copied().collect::<Vec<_>>(), &want, 5e-4, 1e-4);
    }
    let error = try_load(folder.source(), Some(129)).expect_err("longer than the configuration asks for");
    assert!(matches!(error, LoadError::Context { got: 129, limit: 128 }), "{error}");
}

/// Mistral's names, and its order of the rows of q and k: neighbours are pairs.
fn mistrals_own(golden: &Folder) -> Folder {
    let (heads, head_dim) = ([("wq", 4), ("wk", 2)], 32);
    let name = |name: &str| {
        let name =
            name.replace("model.", "").replace("embed_tokens", "tok_embeddings").replace("lm_head", "output");
        let name = name.replace("self_attn.", "attention.").replace("mlp.", "feed_forward.");
        let name =
            name.replace("input_layernorm", "attention_norm").replace("post_attention_layernorm", "ffn_norm");
        let name =
            ["q", "k", "v", "o"].iter().fold(name, |n, m| n.replace(&format!("{m}_proj"), &format!("w{m}")));
        [("gate", "1"), ("down", "2"), ("up", "3")]
            .iter()
            .fold(name, |n, (m, i)| n.replace(&format!("{m}_proj"), &format!("w{i}")))
    };
    let mut own = golden.renamed(name);
    for (name, (_, shape, bytes)) in &mut own.tensors {
        let Some((_, heads)) = heads.iter().find(|(m, _)| name.ends_with(&format!("{m}.weight"))) else {
            continue;
        };
        assert_eq!(shape[0], heads * head_dim, "{name}");
        let row = bytes.len() / shape[0];
        let old = bytes.clone();
        for h in 0..*heads {
            for i in 0..head_dim / 2 {
                for part in 0..2 {
                    let from = (h * head_dim + part * head_dim / 2 + i) * row;
                    let to = (h * head_dim + 2 * i + part) * row;
                    bytes[to..to + row].copy_from_slice(&old[from..from + row]);
                }
            }
        }
    }
    own
}

fn through(source: MemorySource) -> Result<Vec<f32>, LoadError> {
    let model = try_load(source, None)?;
    assert!(model.unused_tensors().is_empty(), "{:?}", model.unused_tensors());
    Ok(forward(&model, &[3, 1, 4, 1, 5, 9, 2, 6]))
}

#[test]
fn mistrals_own_files() {
    let golden = Folder::golden("mistral_swa_f16");
    let own = mistrals_own(&golden);
    let want = logits("as transformers has it", golden.source());
    let params = json!({"dim": 64, "n_layers": 3, "head_dim": 32, "hidden_dim": 112, "n_heads": 4, "n_kv_heads": 2,
        "norm_eps": 1e-5, "vocab_size": 320, "rope_theta": 10000.0, "sliding_window": "16", "max_seq_len": 256});
    let with = |params: &Value| {
        MemorySource::new()
            .with("params.json", params.to_string().into_bytes())
            .with("consolidated.safetensors", own.weights())
    };
    let got = through(with(&params)).expect("loads");
    assert!(got == want, "params.json: other logits");
    // Beside a configuration of transformers, and with the weights in several files.
    let got = through(own.described().with("consolidated.safetensors", own.weights())).expect("loads");
    assert!(got == want, "config.json: other logits");
    let mut parts = [own.clone(), own.clone()];
    parts[0].tensors.retain(|name, _| name.starts_with("layers.0."));
    parts[1].tensors.retain(|name, _| !name.starts_with("layers.0."));
    let place = |name: &String| if name.starts_with("layers.0.") { "a.safetensors" } else { "b.safetensors" };
    let map: BTreeMap<&String, &str> = own.tensors.keys().map(|name| (name, place(name))).collect();
    let index = json!({"weight_map": map}).to_string().into_bytes();
    let source = own
        .described()
        .with("consolidated.safetensors.index.json", index)
        .with("a.safetensors", parts[0].weights())
        .with("b.safetensors", parts[1].weights());
    assert!(through(source).expect("loads") == want, "several files: other logits");
    // Beside the files of transformers they do not count, broken as they may be.
    let both = golden.source().with("consolidated.safetensors", vec![1, 2, 3]);
    assert!(through(both).expect("loads") == want, "both: other logits");

    for (field, value) in [
        ("moe", json!({"num_experts": 8})),
        ("quantization", json!({"qformat_weight": "fp8_e4m3"})),
        ("yarn", json!({"factor": 16})),
        ("use_biases", json!(true)),
        ("dim", Value::Null),
        ("norm_eps", Value::Null),
    ] {
        let mut params = params.clone();
        params[field] = value;
        let error = through(with(&params)).expect_err(field);
        let named =
            matches!(&error, LoadError::Field { file, field: f, .. } if file == "params.json" && f == field);
        assert!(named, "{field}: {error}");
    }
    let mut params = params.clone();
    params["n_heads"] = 8.into();
    let error = through(with(&params)).expect_err("rows that are not those of the heads");
    assert!(
        matches!(&error, LoadError::Tensors { mis_shaped, .. } if mis_shaped[0].got == [128, 64]),
        "{error}"
    );
    let alone = MemorySource::new().with("consolidated.safetensors", own.weights());
    let error = through(alone).expect_err("no params.json");
    assert!(matches!(&error, LoadError::NoFile { file } if file == "params.json"), "{error}");
}

#[test]
fn folders_without_weights_that_can_be_read() {
    let golden = Folder::golden("llama_llama3rope");
    for (file, said) in [
        ("pytorch_model.bin", "pytorch_model.bin is there"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin.index.json is there"),
        ("readme.txt", "no weights"),
    ] {
        let error = refused(file, golden.described().with(file, b"x".to_vec()));
        assert!(matches!(error, LoadError::NoWeights { .. }) && error.to_string().contains(said), "{error}");
    }
    // A left-over index of shards that are gone.
    let names: BTreeMap<&String, &str> =
        golden.tensors.keys().map(|name| (name, "model-1-of-9.safetensors")).collect();
    let index = json!({"weight_map": names}).to_string().into_bytes();
    let source = golden.source().with("model.safetensors.index.json", index.clone());
    assert!(logits("a left-over index", source) == logits("no index", golden.source()));
    let error = refused("only the index", golden.described().with("model.safetensors.index.json", index));
    assert!(error.to_string().contains("model-1-of-9.safetensors, which is missing"), "{error}");
}

/// Parameters of quantisation in the files of the tools, not in config.json.
#[test]
fn descriptions_beside_the_configuration() {
    let golden = Folder::golden("llama_gptq_int4");
    let want = logits("in config.json", golden.source());
    let mut bare = golden.clone();
    let stated =
        bare.config.as_object_mut().expect("an object").remove("quantization_config").expect("is there");
    let with = |file: &str, value: &Value| bare.source().with(file, value.to_string().into_bytes());
    assert!(logits("quantize_config.json", with("quantize_config.json", &stated)) == want);
    // As AutoGPTQ wrote it before there was a name of the method.
    let mut old = stated.clone();
    for name in ["quant_method", "checkpoint_format"] {
        old.as_object_mut().expect("an object").remove(name);
    }
    assert!(logits("without a method", with("quantize_config.json", &old)) == want);
    old["bits"] = 5.into();
    let error = refused("5 bits", with("quantize_config.json", &old));
    let named = matches!(&error, LoadError::Field { file, field, .. } if file == "quantize_config.json" && field == "bits");
    assert!(named, "{error}");
    // What stands in config.json goes before, a file beside a dense model is left over, and nothing is not guessed.
    assert!(
        logits("both", golden.source().with("quantize_config.json", old.to_string().into_bytes())) == want
    );
    let dense = Folder::golden("llama_llama3rope");
    let alone = logits("dense", dense.source());
    assert!(logits("left over", dense.source().with("quantize_config.json", b"{}".to_vec())) == alone);
    let error = refused("no description", bare.source());
    let LoadError::Config { field, got, want } = &error else { panic!("{error}") };
    assert!(field == "quantization_config" && got == "absent", "{error}");
    assert!(
        want.contains('q') && want.contains("qweight") && want.contains("quantize_config.json"),
        "{error}"
    );

    let awq = Folder::golden("llama_awq_int4");
    let want = logits("AWQ in config.json", awq.source());
    let mut bare = awq.clone();
    bare.config.as_object_mut().expect("an object").remove("quantization_config").expect("is there");
    let old = json!({"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"});
    let source = bare.source().with("quant_config.json", old.to_string().into_bytes());
    assert!(logits("quant_config.json", source) == want);
}

/// ModelOpt keeps its description in a file of its own, nested, or puts that form into config.json.
#[test]
fn modelopts_own_form() {
    let mut folder =
        Folder::made_up(&Checkpoint::new("llama", Dtype::F32, [32, 2, 1, 16, 48, 50], &json!({})));
    let mut want = folder.clone();
    for (name, (dtype, shape, bytes)) in folder.tensors.clone() {
        if !name.ends_with("_proj.weight") {
            continue;
        }
        assert_eq!(dtype, Dtype::F32);
        // Codes of E4M3: powers of two, so that the product with the scale is exact.
        let codes: Vec<u8> =
            bytes.chunks_exact(4).map(|c| (c[2] & 0x80) | (0x20 + ((c[2] & 7) << 3))).collect();
        let value = |&code: &u8| {
            let size = 2f32.powi(i32::from(code >> 3 & 15) - 7);
            0.5 * if code & 0x80 == 0 { size } else { -size }
        };
        let values = codes.iter().map(value).flat_map(f32::to_le_bytes).collect();
        want.tensors.insert(name.clone(), (Dtype::F32, shape.clone(), values));
        let scale = |v: f32| (Dtype::F32, Vec::new(), v.to_le_bytes().to_vec());
        folder.tensors.insert(name.replace(".weight", ".weight_scale"), scale(0.5));
        folder.tensors.insert(name.replace(".weight", ".input_scale"), scale(0.3));
        folder.tensors.insert(name, (Dtype::F8_E4M3, shape, codes));
    }
    let want = logits("dense", want.source());
    let own = json!({"producer": {"name": "modelopt", "version": "0.23.0"}, "quantization": {"quant_algo": "FP8",
        "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}});
    let check = |what: &str, source: MemorySource| {
        let model = try_load(source, None).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(
            model.notes().iter().any(|note| note.contains("kv_cache_quant_algo")),
            "{what}: {:?}",
            model.notes()
        );
        assert_close(what, &forward(&model, &[3, 1, 4, 1, 5, 9, 2, 6]), &want, 1e-5, 1e-5);
    };
    check("hf_quant_config.json", folder.source().with("hf_quant_config.json", own.to_string().into_bytes()));
    let mut nested = folder.clone();
    nested.config["quantization_config"] = own.clone();
    check("nested", nested.source());
    nested.config["quantization_config"]["quantization"]["quant_algo"] = "W4A8_AWQ".into();
    let error = refused("another algorithm", nested.source());
    let named = matches!(&error, LoadError::Config { field, .. } if field == "quantization_config.quantization.quant_algo");
    assert!(named, "{error}");
}

/// GPTQModel's rules: the first that matches counts, from the beginning of the name.
#[test]
fn gptq_rules_for_single_modules() {
    let names =
        ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"];
    let describe = |dynamic: &Value| {
        let info = |name: &&str| girih_model::checkpoint::table::TensorInfo {
            name: format!("{name}.qweight"),
            dtype: StoredType::I32,
            shape: vec![8, 8],
            file: "f".into(),
            range: 0..256,
        };
        let table = TensorTable::new(names.iter().map(info).collect()).expect("a table");
        let config = json!({"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4,
            "group_size": 128, "desc_act": true, "dynamic": dynamic}});
        let config = Config::parse(config.to_string().as_bytes()).expect("a configuration");
        Quantization::of(&config.raw, &table)
    };
    let parameters = |dynamic: &Value| {
        let found = describe(dynamic).unwrap_or_else(|e| panic!("{dynamic}: {e}"));
        names.map(|name| match &found.modules[name] {
            Stored::Gptq(g) => (g.bits, g.group, g.ordered),
            other => panic!("{name}: {other:?}"),
        })
    };
    let base = (4, Some(128), true);
    assert_eq!(parameters(&Value::Null), [base; 3]);
    assert_eq!(parameters(&json!({})), [base; 3]);
    let rules = json!({
        r".*\.1\..*(?:gate|up)_proj": {"bits": 8, "group_size": -1},
        r"+:.*\.mlp\..*": {"bits": 2, "desc_act": false, "sym": false},
        r"mlp": {"bits": 3},
        r"-:model\.layers\.2\..*": {},
    });
    assert_eq!(parameters(&rules), [base, (2, Some(128), false), (8, None, true)]);
    for (rules, field) in [
        (json!({r"-:.*q_proj": {}}), "dynamic.-:.*q_proj"),
        (json!({r".*": {"bits": 7}}), "dynamic..*.bits"),
        (json!({r".*": {"adapter": {"rank": 4}}}), "dynamic..*.adapter"),
        (json!({r"(?=x)": {}}), "dynamic.(?=x)"),
        (json!([1]), "dynamic"),
    ] {
        let error = describe(&rules).expect_err(field);
        let want = format!("quantization_config.{field}");
        assert!(matches!(&error, LoadError::Config { field, .. } if *field == want), "{rules}: {error}");
    }
}
