//! A checkpoint whose bytes JavaScript has: `{ size(file), read(file, start, end), list?() }`.

use std::cell::RefCell;
use std::ops::Range;

use girih_model::LoadError;
use girih_model::checkpoint::source::{BoxFuture, ByteSource};
use js_sys::{Array, Function, Promise, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::value::get;

/// The page's object, and the first thing that it threw.
#[derive(Debug)]
pub struct JsSource {
    object: JsValue,
    thrown: RefCell<Option<JsValue>>,
}

impl JsSource {
    /// A source of the page's.
    pub fn new(object: JsValue) -> Self {
        Self { object, thrown: RefCell::default() }
    }

    /// What the object threw, which says more than the error that came of it.
    pub fn take_thrown(&self) -> Option<JsValue> {
        self.thrown.borrow_mut().take()
    }

    async fn call(&self, method: &str, file: &str, args: &[f64]) -> Result<JsValue, LoadError> {
        let values = Array::of1(&file.into());
        for &arg in args {
            values.push(&arg.into());
        }
        let failed = |error: JsValue| {
            let message = get(&error, "message").as_string().unwrap_or_else(|| format!("{error:?}"));
            self.thrown.borrow_mut().get_or_insert(error);
            LoadError::Read { file: file.to_owned(), message }
        };
        let function = get(&self.object, method).dyn_into::<Function>().map_err(|_| LoadError::Read {
            file: file.to_owned(),
            message: format!("the source has no method {method}()"),
        })?;
        let result = Reflect::apply(&function, &self.object, &values).map_err(failed)?;
        JsFuture::from(Promise::resolve(&result)).await.map_err(failed)
    }
}

impl ByteSource for JsSource {
    fn read<'a>(&'a self, file: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Vec<u8>, LoadError>> {
        Box::pin(async move {
            let value = self.call("read", file, &[range.start as f64, range.end as f64]).await?;
            let bytes = value.dyn_into::<Uint8Array>().map_err(|_| LoadError::Read {
                file: file.to_owned(),
                message: "read() gave no Uint8Array".into(),
            })?;
            let (got, want) = (range.start + u64::from(bytes.length()), range.end);
            if got == want {
                Ok(bytes.to_vec())
            } else {
                Err(LoadError::Truncated { file: file.to_owned(), got, want })
            }
        })
    }

    fn size<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<Option<u64>, LoadError>> {
        Box::pin(async move {
            let value = self.call("size", file, &[]).await?;
            if value.is_null() || value.is_undefined() {
                return Ok(None);
            }
            let size = value.as_f64().filter(|n| *n >= 0.0 && n.fract() == 0.0);
            size.map(|n| Some(n as u64)).ok_or_else(|| LoadError::Read {
                file: file.to_owned(),
                message: format!("size() gave {value:?}, must be a number of bytes or null"),
            })
        })
    }

    fn list(&self) -> Option<Vec<String>> {
        let function = get(&self.object, "list").dyn_into::<Function>().ok()?;
        let names = Reflect::apply(&function, &self.object, &Array::new()).ok()?;
        Some(Array::from(&names).iter().filter_map(|name| name.as_string()).collect())
    }
}
