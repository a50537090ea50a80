//! The device of a page.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use girih_kernels::caps::Caps;
use girih_kernels::selftest::Verdicts;
use girih_kernels::shaders::Dialect;
use girih_kernels::winners::Winners;
use girih_kernels::{Gpu, Options};
use girih_model::checkpoint::source::ByteSource;
use girih_model::{
    Eviction, ExpertMemory, LoadOptions, Model, Prefetch, Session, SessionOptions, TextError, WeightPolicy,
    weight_format,
};
use girih_ops::QuantActivation;
use js_sys::{Function, Promise};
use serde_json::{Value, json};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, future_to_promise, spawn_local};

use crate::error::{Code, failure, of};
use crate::model::EngineModel;
use crate::source::JsSource;
use crate::template::{self, Template};
use crate::value::{from_js, get, optional, text, to_js, whole};

/// A device and what is loaded on it.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Engine {
    gpu: Rc<RefCell<Gpu>>,
    /// What is known of its kernels.
    verdicts: Rc<RefCell<Verdicts>>,
    /// The engine made the device, and may end it.
    owned: bool,
}

#[wasm_bindgen]
impl Engine {
    /// Opens the browser's adapter, or takes the page's device.
    ///
    /// Options: `device`, a `GPUDevice`; `maxTier`; `powerPreference`; `maxBindingBytes`; `packedDot: false` does
    /// without WGSL's packed 8-bit integers.
    #[wasm_bindgen(unchecked_return_type = "Promise<Engine>")]
    pub fn create(options: JsValue) -> Promise {
        future_to_promise(async move { create(options).await.map(JsValue::from) })
    }

    /// What the device can do.
    pub fn caps(&self) -> JsValue {
        to_js(&describe(self.gpu.borrow().caps()))
    }

    /// What was made so far.
    pub fn counters(&self) -> JsValue {
        let c = self.gpu.borrow().counters();
        to_js(&json!({ "pipelines": c.pipelines, "bindGroups": c.bind_groups, "buffers": c.buffers,
            "submits": c.submits, "dispatches": c.dispatches }))
    }

    /// Calls back once, with reason and message, when the device is lost.
    #[wasm_bindgen(js_name = onLost)]
    pub fn on_lost(&self, callback: Function) {
        let gpu = self.gpu.borrow();
        let Some(device) = gpu.device().as_webgpu() else { return };
        let device: &JsValue = device.as_ref();
        let Ok(lost) = get(device, "lost").dyn_into::<Promise>() else { return };
        spawn_local(async move {
            if let Ok(info) = JsFuture::from(lost).await {
                let _ = callback.call2(&JsValue::UNDEFINED, &get(&info, "reason"), &get(&info, "message"));
            }
        });
    }

    /// What the self-tests of loads found so far, and what [`Engine::learn`] was told: names of kernels with their
    /// variants.
    #[wasm_bindgen(unchecked_return_type = "{ right: string[]; wrong: string[] }")]
    pub fn verdict(&self) -> JsValue {
        let verdicts = self.verdicts.borrow();
        to_js(&json!({ "right": verdicts.right, "wrong": verdicts.wrong }))
    }

    /// Takes what [`Engine::verdict`] gave earlier on the same device: it is not tested again.
    pub fn learn(&self, right: Vec<String>, wrong: Vec<String>) {
        let mut verdicts = self.verdicts.borrow_mut();
        verdicts.right.extend(right);
        verdicts.wrong.extend(wrong);
    }

    /// The variants that were measured to take the least time, as text: what [`Engine::tune`] found, and what
    /// [`Engine::use_winners`] was told.
    pub fn winners(&self) -> String {
        self.gpu.borrow().caps().tuned.write()
    }

    /// Takes what [`Engine::winners`] gave earlier on the same device, for models that are loaded from now on. False, and
    /// nothing, for any other text.
    #[wasm_bindgen(js_name = useWinners)]
    pub fn use_winners(&self, text: &str) -> bool {
        let winners = Winners::read(text);
        let known = winners.is_some();
        if let Some(winners) = winners {
            crate::tune::put_in_force(&self.gpu, winners);
        }
        known
    }

    /// Measures the variants of the kernels that a loaded model uses, for at most about `seconds`; the winners are used by
    /// models that are loaded from now on. `onRow` is given each row; it ends the measuring by returning false.
    #[wasm_bindgen(unchecked_return_type = "Promise<Omit<TuneReport, 'adapter' | 'tier'>>")]
    pub fn tune(&self, model: &EngineModel, seconds: f64, on_row: Function) -> Promise {
        let (model, kept) = model.parts();
        let gpu = self.gpu.clone();
        future_to_promise(async move { crate::tune::run(&gpu, &model, kept, seconds, &on_row).await })
    }

    /// Loads a checkpoint and compiles all that it needs. `onProgress(stage, done, total)` with the stages `weights`
    /// (bytes) and `pipelines`; before them `self-test`, where there is something to test.
    ///
    /// Options: `context`; `weights`, `activations` as the command's; `keyValues`, `"f32"` or `"f16"`; `chatTemplate`,
    /// `"chatml"` or the text of a template; `selfTest`: kernels without a verdict are tested first, and what fails is not
    /// used; `expertMemory`, bytes of experts on the device, with `expertEviction` and `expertPrefetch` as the command's. With
    /// it the source is read as long as the model lives.
    #[wasm_bindgen(js_name = loadModel, unchecked_return_type = "Promise<EngineModel>")]
    pub fn load_model(&self, source: JsValue, options: JsValue, on_progress: Function) -> Promise {
        let gpu = self.gpu.borrow().clone();
        let verdicts = self.verdicts.clone();
        future_to_promise(async move {
            let source = Arc::new(JsSource::new(source));
            let loaded = load(&gpu, source.clone(), &options, &verdicts, &on_progress).await;
            // What the page's object threw says more than what came of it.
            loaded.map(JsValue::from).map_err(|error| source.take_thrown().unwrap_or(error))
        })
    }

    /// Measures the ceilings of the device, then beside them the cases whose kernel and shape, as in
    /// `gemv 1x4096x4096 f32`, hold `kernels`. `onRow` is given each row; it ends the bench by returning false.
    #[wasm_bindgen(unchecked_return_type = "Promise<BenchReport>")]
    pub fn bench(&self, options: JsValue, on_row: Function) -> Promise {
        let gpu = self.gpu.borrow().clone();
        future_to_promise(async move {
            let options = from_js(&options)?;
            let wanted = optional(&options, "kernels", "a text", text)?.unwrap_or_default();
            crate::bench::run(&gpu, &wanted, &on_row).await
        })
    }

    /// Ends the device if the engine made it; all that is on it is gone.
    pub fn destroy(&self) {
        if self.owned {
            self.gpu.borrow().destroy();
        }
    }
}

async fn create(options: JsValue) -> Result<Engine, JsValue> {
    // A device is no JSON.
    let device = get(&options, "device");
    let plain = js_sys::Object::assign(&js_sys::Object::new(), options.unchecked_ref());
    crate::value::set(&plain, "device", &JsValue::UNDEFINED);
    let plain = from_js(&plain)?;
    let max_tier = optional(&plain, "maxTier", "a tier: t0, t1, t2, t3 or t4", |v| v.as_str()?.parse().ok())?;
    let low_power = |v: &Value| match v.as_str() {
        Some("low-power") => Some(true),
        Some("high-performance") => Some(false),
        _ => None,
    };
    let wanted = Options {
        max_tier,
        max_binding_bytes: optional(&plain, "maxBindingBytes", "a number of bytes", Value::as_u64)?,
        low_power: optional(&plain, "powerPreference", "low-power or high-performance", low_power)?
            .unwrap_or(false),
        ..Options::default()
    };
    let owned = device.is_falsy();
    let gpu = if owned { Gpu::new(wanted).await } else { Gpu::from_web(&device, wanted).await };
    let mut gpu = gpu.map_err(|e| of(&e))?;
    if optional(&plain, "packedDot", "true or false", Value::as_bool)? == Some(false) {
        gpu = gpu.with_caps(Caps { dialect: Dialect::BrowserBase, ..gpu.caps().clone() });
    }
    Ok(Engine { gpu: Rc::new(RefCell::new(gpu)), verdicts: Rc::default(), owned })
}

fn describe(caps: &Caps) -> Value {
    json!({
        "tier": caps.tier.to_string(), "adapter": caps.adapter.name, "isCpu": caps.is_cpu,
        "subgroups": caps.subgroup_size.map(|(smallest, largest)| [smallest, largest]), "f16": caps.f16,
        "packedDot": caps.dialect != Dialect::BrowserBase, "timestamps": caps.timestamps,
        "workgroupBytes": caps.workgroup_bytes, "invocations": caps.invocations,
        "bindingBytes": caps.binding_bytes, "bufferBytes": caps.buffer_bytes,
        "storageBuffers": caps.storage_buffers, "tuned": caps.tuned.len(),
    })
}

/// `--activations` of the command.
fn activations(value: &Value) -> Option<QuantActivation> {
    match value.as_str()? {
        "int8" => Some(QuantActivation::INT8),
        other => other.parse().ok(),
    }
}

/// `--expert-memory` of the command, with what belongs to it.
fn expert_memory(options: &Value) -> Result<Option<ExpertMemory>, JsValue> {
    let bytes = optional(options, "expertMemory", "a number of bytes", Value::as_u64)?;
    let eviction = optional(options, "expertEviction", "lru or lfu", |v| match v.as_str()? {
        "lru" => Some(Eviction::Lru),
        "lfu" => Some(Eviction::Lfu),
        _ => None,
    })?;
    let prefetch = optional(options, "expertPrefetch", "off, gate or statistics", |v| match v.as_str()? {
        "off" => Some(Prefetch::Off),
        "gate" => Some(Prefetch::Gate),
        "statistics" => Some(Prefetch::Statistics),
        _ => None,
    })?;
    if bytes.is_none() && (eviction.is_some() || prefetch.is_some()) {
        let what = "found expertEviction or expertPrefetch, wanted them with expertMemory only";
        return Err(failure(Code::BadArgument, what));
    }
    let (eviction, prefetch) = (eviction.unwrap_or_default(), prefetch.unwrap_or_default());
    Ok(bytes.map(|bytes| ExpertMemory { bytes, eviction, prefetch }))
}

async fn load(
    gpu: &Gpu,
    source: Arc<JsSource>,
    options: &JsValue,
    verdicts: &RefCell<Verdicts>,
    on_progress: &Function,
) -> Result<EngineModel, JsValue> {
    let options = from_js(options)?;
    let formats = "f32, f16, bf16, int8, int4, mxfp4, nvfp4 or a format like int4-g128-f16-z8";
    let policy = WeightPolicy {
        force: optional(&options, "weights", formats, |v| weight_format(v.as_str()?).ok())?,
        activations: optional(&options, "activations", "float, int8 or one like int8-token", activations)?,
    };
    let context = optional(&options, "context", "a number of tokens", whole)?;
    let is_f16 = |value: &Value| match value.as_str()? {
        "f32" => Some(false),
        "f16" => Some(true),
        _ => None,
    };
    let f16_cache = optional(&options, "keyValues", "f32 or f16", is_f16)?.unwrap_or(false);
    let template = optional(&options, "chatTemplate", "chatml or the text of a template", text)?;
    let wrong = |error: TextError| failure(Code::BadArgument, &format!("chatTemplate: {error}"));
    template.as_deref().map_or(Ok(()), template::check).map_err(wrong)?;
    let kept = SessionOptions { f16_cache, ..SessionOptions::default() };
    let tell = {
        let on_progress = on_progress.clone();
        move |stage: &str, done: f64, total: f64| {
            let _ = on_progress.call3(&JsValue::UNDEFINED, &stage.into(), &done.into(), &total.into());
        }
    };
    let experts = expert_memory(&options)?;
    let loading = LoadOptions { context, weights: policy, experts, session: Some(kept) };
    let mut tested = gpu.clone();
    if optional(&options, "selfTest", "true or false", Value::as_bool)?.unwrap_or(false) {
        // Not borrowed while the device works: the page may ask for the verdict.
        let mut known = verdicts.borrow().clone();
        let shared: Arc<dyn ByteSource> = source.clone();
        let on_test = |launches| tell("self-test", 0.0, launches as f64);
        let found = Model::test(gpu, &shared, loading, &mut known, on_test).await;
        let mut verdicts = verdicts.borrow_mut();
        verdicts.right.append(&mut known.right);
        verdicts.wrong.append(&mut known.wrong);
        (tested, _) = found.map_err(|e| of(&e))?;
    }
    let gpu = &tested;
    let on_weights = tell.clone();
    let last = Cell::new(0);
    let model = Model::load(gpu, source, loading, move |p| {
        // A message for each percent, not for each vector.
        let percent = 100 * p.loaded / p.total.max(1);
        if last.replace(percent) != percent {
            on_weights("weights", p.loaded as f64, p.total as f64);
        }
    })
    .await
    .map_err(|e| of(&e))?;
    let session = if model.encoder().is_some() {
        tell("pipelines", 0.0, 1.0);
        model.warm_up_embedding().await.map_err(|e| of(&e))?;
        tell("pipelines", 1.0, 1.0);
        None
    } else {
        let mut session = Session::new(&model, kept).map_err(|e| of(&e))?;
        let told = session.warm_up(|done, total| tell("pipelines", done as f64, total as f64)).await;
        told.map_err(|e| of(&e))?;
        Some(session)
    };
    if let Some(message) = gpu.loss() {
        return Err(failure(Code::DeviceLost, message));
    }
    let chat = Template::choose(template.as_deref(), &model).map_err(wrong)?;
    Ok(EngineModel::new(model, kept, chat, session))
}
