//! The browser's side of a device. wgpu 30 negotiates no subgroups on the web and takes no device that a page made.
//! Both are done here: adapter and device are asked for in the browser's own terms, then handed to wgpu as the answer
//! to its own questions. Nothing global is changed for longer than one call, and no text is evaluated, so a strict
//! content security policy does not mind.

use js_sys::{Array, Function, Object, Promise, Reflect};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use girih_shaders::Dialect;

use super::caps::read_caps;
use super::options::Options;
use crate::caps::Caps;
use crate::error::GpuError;

/// Features that are asked for where the adapter has them.
const FEATURES: [&str; 3] = ["subgroups", "shader-f16", "timestamp-query"];
/// Limits that are asked for as the adapter has them. Others keep the defaults of WebGPU.
const LIMITS: [&str; 11] = [
    "maxBufferSize",
    "maxStorageBufferBindingSize",
    "maxUniformBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
    "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX",
    "maxComputeWorkgroupSizeY",
    "maxComputeWorkgroupSizeZ",
    "maxComputeWorkgroupsPerDimension",
    "minStorageBufferOffsetAlignment",
];

/// What wgpu does not tell of a browser's adapter or device.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Smallest and largest subgroup size, where subgroup operations were granted.
    pub subgroup_size: Option<(u32, u32)>,
    /// Whether WGSL has `dot4I8Packed` and its kin.
    pub packed_dot: bool,
    /// A CPU behind the API.
    pub is_cpu: bool,
    /// Vendor and architecture: browsers give no name.
    pub name: String,
}

/// `value.key`; `undefined` where there is none.
fn get(value: &JsValue, key: &str) -> JsValue {
    Reflect::get(value, &key.into()).unwrap_or(JsValue::UNDEFINED)
}

fn call(this: &JsValue, method: &str, args: &Array) -> Result<JsValue, JsValue> {
    let function: Function = get(this, method).dyn_into()?;
    Reflect::apply(&function, this, args)
}

async fn call_async(this: &JsValue, method: &str, args: &Array) -> Result<JsValue, JsValue> {
    JsFuture::from(Promise::resolve(&call(this, method, args)?)).await
}

/// Whether a set-like object (features of a device, of the language) has an entry.
fn has(set: &JsValue, name: &str) -> bool {
    call(set, "has", &Array::of1(&name.into())).is_ok_and(|found| found.is_truthy())
}

fn text(value: &JsValue) -> String {
    value.as_string().unwrap_or_default()
}

/// The message of an `Error`, or whatever was thrown as text.
fn message(error: &JsValue) -> String {
    get(error, "message").as_string().unwrap_or_else(|| format!("{error:?}"))
}

/// `navigator.gpu` of a page or a worker.
fn navigator_gpu() -> Option<JsValue> {
    let gpu = get(&get(&js_sys::global(), "navigator"), "gpu");
    (!gpu.is_falsy()).then_some(gpu)
}

const NO_WEBGPU: &str = "WebGPU (navigator.gpu is missing: the page must be served by https or from localhost, by a \
     browser that has WebGPU)";

/// Opens the browser's adapter with every useful feature and limit it has. It is the only one: a name cannot choose.
pub(super) async fn open(options: &Options) -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), GpuError> {
    let adapter = request_adapter(options.low_power).await?;
    if let Some(wanted) = &options.adapter {
        return Err(GpuError::NoSuchAdapter { wanted: wanted.clone(), found: adapter_facts(&adapter).name });
    }
    let device = request_device(&adapter).await?;
    wrap(&adapter, &device).await
}

/// What an opened device can do, with what the browser says of the device itself.
pub(super) fn caps(adapter: &wgpu::Adapter, device: &wgpu::Device) -> Caps {
    let mut caps = read_caps(adapter, &device.limits(), device.features());
    if let Some(facts) = device_facts(device) {
        caps.subgroup_size = facts.subgroup_size;
        caps.is_cpu = facts.is_cpu;
        caps.unified_memory = facts.is_cpu;
        caps.adapter.name = facts.name;
        caps.dialect = if facts.packed_dot { Dialect::Browser } else { Dialect::BrowserBase };
        caps.integer_dot = facts.is_cpu || (facts.packed_dot && caps.adapter.has_integer_dot());
        caps.few_registers = !facts.is_cpu && caps.adapter.has_few_registers();
        caps.tier = caps.best_tier();
    }
    caps
}

/// The browser's adapter, a `GPUAdapter`.
pub(super) async fn request_adapter(low_power: bool) -> Result<JsValue, GpuError> {
    let gpu = navigator_gpu().ok_or_else(|| GpuError::NoAdapter { backends: NO_WEBGPU.into() })?;
    let options = Object::new();
    let preference = if low_power { "low-power" } else { "high-performance" };
    let _ = Reflect::set(&options, &"powerPreference".into(), &preference.into());
    let adapter = call_async(&gpu, "requestAdapter", &Array::of1(&options)).await;
    match adapter {
        Ok(adapter) if !adapter.is_falsy() => Ok(adapter),
        _ => {
            Err(GpuError::NoAdapter { backends: "WebGPU (the browser has it, but offers no adapter)".into() })
        }
    }
}

/// Asks an adapter for a device with every useful feature and limit that it has.
pub(super) async fn request_device(adapter: &JsValue) -> Result<JsValue, GpuError> {
    let (features, limits, descriptor) = (Array::new(), Object::new(), Object::new());
    let offered = get(adapter, "features");
    for name in FEATURES.into_iter().filter(|name| has(&offered, name)) {
        features.push(&name.into());
    }
    let offered = get(adapter, "limits");
    for name in LIMITS {
        let limit = get(&offered, name);
        if !limit.is_undefined() {
            let _ = Reflect::set(&limits, &name.into(), &limit);
        }
    }
    for (key, value) in
        [("label", &JsValue::from("girih")), ("requiredFeatures", &features), ("requiredLimits", &limits)]
    {
        let _ = Reflect::set(&descriptor, &key.into(), value);
    }
    call_async(adapter, "requestDevice", &Array::of1(&descriptor)).await.map_err(|error| GpuError::Request {
        adapter: facts(adapter, &get(adapter, "info")).name,
        message: message(&error),
    })
}

/// Makes wgpu's objects of a `GPUAdapter` and a `GPUDevice` of it.
///
/// wgpu asks `navigator.gpu` for an adapter and the adapter for a device, each with one call. For the time of these
/// calls properties of the two objects answer with what there is already.
pub(super) async fn wrap(
    adapter: &JsValue,
    device: &JsValue,
) -> Result<(wgpu::Adapter, wgpu::Device, wgpu::Queue), GpuError> {
    let refused = |message: String| GpuError::Request { adapter: "of the page".into(), message };
    let gpu = navigator_gpu().ok_or_else(|| GpuError::NoAdapter { backends: NO_WEBGPU.into() })?;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::BROWSER_WEBGPU,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    // The future is made by the call, and with it the browser's answer; only waiting is left for later.
    let wrapped = answer_with(&gpu, "requestAdapter", adapter, || {
        instance.request_adapter(&wgpu::RequestAdapterOptions::default())
    });
    let wrapped = wrapped.map_err(&refused)?.await.map_err(|e| refused(e.to_string()))?;
    let opened = answer_with(adapter, "requestDevice", device, || {
        wrapped.request_device(&wgpu::DeviceDescriptor::default())
    });
    let (device, queue) = opened.map_err(&refused)?.await.map_err(|e| refused(e.to_string()))?;
    Ok((wrapped, device, queue))
}

/// Runs `f` while `object.method()` gives a promise of `value`.
fn answer_with<T>(
    object: &JsValue,
    method: &str,
    value: &JsValue,
    f: impl FnOnce() -> T,
) -> Result<T, String> {
    let value = value.clone();
    let answer = Closure::<dyn FnMut() -> Promise>::new(move || Promise::resolve(&value));
    let set = Reflect::set(object, &method.into(), answer.as_ref());
    if !set.is_ok_and(|done| done) {
        return Err(format!("{method} of this browser cannot be answered"));
    }
    let result = f();
    // An own property hides the method of the prototype, which is there again without it.
    let _ = Reflect::delete_property(object.unchecked_ref::<Object>(), &method.into());
    Ok(result)
}

/// What a `GPUAdapter` or `GPUDevice` has; `info` is its `GPUAdapterInfo`.
pub(super) fn facts(owner: &JsValue, info: &JsValue) -> Facts {
    let size = |key: &str| get(info, key).as_f64().unwrap_or_default() as u32;
    let (smallest, largest) = (size("subgroupMinSize"), size("subgroupMaxSize"));
    // A browser that grants subgroups without saying how large they are may use any size of the specification.
    let sizes = if smallest >= 4 && largest >= smallest { (smallest, largest) } else { (4, 128) };
    let architecture = text(&get(info, "architecture"));
    let is_cpu = get(info, "isFallbackAdapter").is_truthy() || architecture == "swiftshader";
    let words = [text(&get(info, "vendor")), architecture, text(&get(info, "description"))];
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let language = navigator_gpu().map_or(JsValue::UNDEFINED, |gpu| get(&gpu, "wgslLanguageFeatures"));
    Facts {
        subgroup_size: has(&get(owner, "features"), "subgroups").then_some(sizes),
        packed_dot: has(&language, "packed_4x8_integer_dot_product"),
        is_cpu,
        name: if words.is_empty() { "a GPU that the browser does not name".into() } else { words.join(" ") },
    }
}

/// Facts of an adapter.
pub(super) fn adapter_facts(adapter: &JsValue) -> Facts {
    facts(adapter, &get(adapter, "info"))
}

/// Facts of the device behind wgpu's.
pub(super) fn device_facts(device: &wgpu::Device) -> Option<Facts> {
    let raw: &JsValue = device.as_webgpu()?.as_ref();
    Some(facts(raw, &get(raw, "adapterInfo")))
}

/// Calls `seen` with every error of the device that no scope catches, and whether memory is what is short. The page's
/// own handler stays where it is.
pub(super) fn on_uncaptured_error(device: &wgpu::Device, seen: impl Fn(String, bool) + 'static) {
    let Some(raw) = device.as_webgpu() else { return };
    let listener = Closure::<dyn Fn(JsValue)>::new(move |event: JsValue| {
        let error = get(&event, "error");
        let kind = text(&get(&get(&error, "constructor"), "name"));
        seen(message(&error), kind == "GPUOutOfMemoryError");
    });
    let args = Array::of2(&"uncapturederror".into(), listener.as_ref());
    if call(raw.as_ref(), "addEventListener", &args).is_ok() {
        // Lives as long as the device may report something: until the page is gone.
        listener.forget();
    }
}
