//! JavaScript's values to Rust's and back.

use js_sys::{JSON, Reflect};
use serde_json::Value;
use wasm_bindgen::JsValue;

use crate::error::{Code, failure};

/// `object.key`; `undefined` where there is none.
pub fn get(object: &JsValue, key: &str) -> JsValue {
    Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED)
}

/// Sets `object.key`, of an object of ours.
pub fn set(object: &JsValue, key: &str, value: &JsValue) {
    // Only a frozen object refuses.
    let _ = Reflect::set(object, &key.into(), value);
}

/// What `JSON.stringify` makes of a value; `null` for what it leaves out.
pub fn from_js(value: &JsValue) -> Result<Value, JsValue> {
    let text = JSON::stringify(value).ok().and_then(|text| text.as_string());
    match text {
        None => Ok(Value::Null),
        Some(text) => {
            serde_json::from_str(&text).map_err(|e| failure(Code::BadArgument, &format!("no JSON: {e}")))
        }
    }
}

/// An object of JavaScript.
pub fn to_js(value: &Value) -> JsValue {
    JSON::parse(&value.to_string()).unwrap_or(JsValue::NULL)
}

/// An optional field of options: a type that is not the wanted one is an error that says so.
pub fn optional<T>(
    options: &Value,
    key: &str,
    want: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, JsValue> {
    match &options[key] {
        Value::Null => Ok(None),
        value => read(value)
            .map(Some)
            .ok_or_else(|| failure(Code::BadArgument, &format!("{key} is {value}, must be {want}"))),
    }
}

/// A whole number that fits u32.
pub fn whole(value: &Value) -> Option<u32> {
    let number = value.as_f64().filter(|n| n.fract() == 0.0)?;
    (0.0..=f64::from(u32::MAX)).contains(&number).then_some(number as u32)
}

/// A text.
pub fn text(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}

/// A number.
pub fn number(value: &Value) -> Option<f32> {
    value.as_f64().map(|n| n as f32)
}
